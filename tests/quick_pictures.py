"""Pictures that no test looks at."""

from canonlift.output.figures import style


def draw_quickly(patch):
    """Draw small, and without making room for texts, which takes longer than training."""
    save = style.save

    def save_as_it_is(figure, path):
        figure.set_layout_engine("none")
        return save(figure, path)

    patch.setattr(style, "DPI", 20)
    patch.setattr(style, "save", save_as_it_is)
