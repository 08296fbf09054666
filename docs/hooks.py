"""Brings into the site what lies beside docs/: figures, and the pages of the repository's root."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add figures/*.png as figures/NAME.png, and the pages under their names in the site."""
    for picture in sorted((ROOT / "figures").glob("*.png")):
        uri = f"figures/{picture.name}"
        files.append(File.generated(config, uri, abs_src_path=str(picture)))
    for name, source in PAGES.items():
        content = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name, content=content))
    return files
