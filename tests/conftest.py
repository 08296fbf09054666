"""How the suite runs; shared scenes and their fixtures are in modules of their own."""

import gc

import jaxtyping
import pytest


def pytest_configure(config):
    """In processes that run tests: the one that only hands them out need not import torch."""
    if not hasattr(config, "workerinput") and config.option.numprocesses:
        return
    import torch
    from hypothesis import HealthCheck, settings

    suite = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    settings.register_profile("suite", max_examples=15, derandomize=True, **suite)
    settings.register_profile("nightly", max_examples=2_000, **suite)  # of each of six tests
    settings.load_profile("suite")
    torch.set_num_threads(1)  # two workers share the cores; their threads would only wait
    gc.disable()  # until all is imported: nothing of it is garbage
    for scenes in ("synthetic_scene", "training_scene", "forked_programs"):
        config.pluginmanager.import_plugin(scenes)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker for all tests of trainings, which share programs, recordings and runs."""
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "training" if "/training/" in file else file

    return Together(config, log)


def pytest_collection_modifyitems(items):
    """Trainings first, as they take longest; both workers are to end at once."""
    items.sort(key=lambda item: item.path, reverse=True)


def pytest_runtest_setup(item):
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs CUDA")


def pytest_collection_finish():
    gc.freeze()  # or what was imported is looked through again and again, a tenth of the time
    gc.enable()


@pytest.fixture(scope="module")
def shapes_unchecked():
    """For modules that train: every shape was checked by the tests of what they call."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
