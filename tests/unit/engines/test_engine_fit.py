"""Which models fit: nothing is suggested that would not, and the machine is read as it is."""

from __future__ import annotations

from allod.engines.fit import GIB, Gpu, Hardware, fit, memory_needed, parse_nvidia_smi, probe, table

SMALL = Hardware(ram_bytes=8 * GIB, cores=2)


def test_everything_suggested_fits_its_memory() -> None:
    for gib in (2, 4, 8, 16, 32, 64, 256):
        for s in fit(Hardware(ram_bytes=gib * GIB, cores=4)):
            assert s.memory_bytes <= 0.7 * gib * GIB, s


def test_a_small_machine_gets_small_models_and_a_tiny_one_none() -> None:
    names = [s.model.name for s in fit(SMALL)]
    assert "Ministral 3 3B" in names
    assert "Mistral Large 3" not in names
    assert fit(Hardware(ram_bytes=GIB, cores=1)) == []


def test_more_memory_never_takes_a_model_away() -> None:
    before: set[str] = set()
    for gib in range(1, 128, 3):
        now = {s.model.name for s in fit(Hardware(ram_bytes=gib * GIB, cores=2))}
        assert before <= now
        before = now


def test_a_gpu_is_preferred_where_the_model_fits_it() -> None:
    with_gpu = Hardware(ram_bytes=64 * GIB, cores=16, gpus=(Gpu(name="L4", memory_bytes=24 * GIB),))
    by_name = {s.model.name: s for s in fit(with_gpu)}
    assert by_name["Ministral 3 8B"].runs_on == "gpu"
    assert by_name["Apertus 70B Instruct"].runs_on == "cpu"
    assert by_name["Apertus 70B Instruct"].slow
    assert fit(with_gpu)[-1].slow


def test_eight_bits_need_more_than_four() -> None:
    for model in table():
        assert memory_needed(model, "q8_0") > memory_needed(model, "q4_k_m") > model.parameters * 5e8


def test_the_table_says_who_made_each_and_under_which_licence() -> None:
    assert len({m.name for m in table()}) == len(table()) >= 15
    for model in table():
        assert model.maker
        assert model.licence
        assert model.country == "unknown" or len(model.country) == 2
        assert bool(model.source) == bool(model.date)


def test_the_next_step_is_a_command() -> None:
    assert "allod models add" in fit(SMALL)[0].how


def test_nvidia_smi_is_read() -> None:
    said = "NVIDIA L4, 23034\nNVIDIA GH200, [N/A]\nodd line\n"
    assert parse_nvidia_smi(said) == (Gpu(name="NVIDIA L4", memory_bytes=23034 * 1024**2),)


def test_this_machine_has_memory_and_cores() -> None:
    here = probe()
    assert here.ram_bytes > 0
    assert here.cores > 0
