"""The protocol: presets validate, every key is checked, every key but the axes is hashed."""

from __future__ import annotations

import pytest

from bench.plan.protocol import AXES, PROTOCOLS, Protocol, load_protocol, presets
from bench.sae.families import FAMILIES
from bench.sae.recipe import FAMILY_KEYS, LATER_KEY
from zoo.cards import read_yaml
from zoo.errors import BadCard, UnknownName, UsageError


@pytest.mark.parametrize("name", presets())
def test_presets_validate_and_bear_their_files_name(name: str) -> None:
    assert load_protocol(name).name == name


@pytest.mark.parametrize("name", presets())
def test_a_preset_names_only_what_differs_from_the_defaults(name: str) -> None:
    named = read_yaml(PROTOCOLS / f"{name}.yaml")
    defaults = {key: field.default for key, field in Protocol.model_fields.items()}
    as_read = Protocol(**named).model_dump()
    assert [key for key in named if as_read[key] == defaults[key]] == []


def test_the_paper_preset_has_the_published_reference_size() -> None:
    protocol = load_protocol("paper")
    assert (protocol.n, protocol.k, protocol.N) == (8192, 64, 100_000)


def test_settings_change_keys_and_numbers_may_be_written_as_people_do() -> None:
    protocol = load_protocol("quick", settings=["k=8", "lr=1e-3", "path=dense"])
    assert (protocol.k, protocol.lr, protocol.path) == (8, 1e-3, "dense")


def test_arms_and_seeds_are_canonical_and_distinct() -> None:
    protocol = load_protocol("quick", arms=["none-none", "raw", "centered"], seeds=[2, 2, 1])
    assert protocol.arms == ("raw", "centered")
    assert protocol.seeds == (2, 1)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"name": "quik"}, UnknownName, "unknown protocol 'quik'. Did you mean quick?"),
        (
            {"settings": ["stpes=3"]},
            UnknownName,
            "unknown protocol key 'stpes'. Did you mean steps",
        ),
        ({"settings": ["steps"]}, UsageError, "--set 'steps' is not KEY=VALUE"),
        ({"settings": ["steps=few"]}, BadCard, "steps: 'few' should be a valid integer"),
        ({"settings": ["k=[1"]}, UsageError, "the value is not plain YAML"),
        ({"settings": ["k=9999"]}, BadCard, "k = 9999 is not below n = "),
        ({"settings": ["buffer=10"]}, BadCard, "buffer = 10 is below two batches"),
        ({"settings": ["l1=2"]}, BadCard, "l1 is read by the family relu, not by topk"),
        (
            {"settings": ["family=relu", "bandwidth=1"]},
            BadCard,
            "bandwidth is read by the family jumprelu, not by relu",
        ),
        (
            {"settings": ["family=gated"]},
            BadCard,
            "family: there is no 'gated', but topk",
        ),
        ({"settings": ["family=[relu]"]}, BadCard, "family: ['relu'] should be a valid string"),
        ({"settings": ["steps="]}, BadCard, "steps: None should be a valid integer"),
        ({"settings": ["warmup=2", "family=relu"]}, BadCard, "warmup: 2 should be less than"),
        ({"settings": ["lr=0"]}, BadCard, "lr: 0 should be greater than 0"),
        ({"settings": ["lr=.inf"]}, UsageError, "which is no finite number"),
        ({"settings": ["aux_alpha=.nan"]}, UsageError, "which is no finite number"),
        ({"settings": ["seeds=[-1]"]}, BadCard, "seeds.0: -1 should be greater than or equal"),
        ({"seeds": [2**63]}, BadCard, "seeds.0: 9223372036854775808 should be less than"),
        (
            {"settings": [f"data_seed={10**23}"]},
            BadCard,
            f"data_seed: {10**23} should be less than",
        ),
        ({"arms": ["centred"]}, UnknownName, "unknown arm 'centred'. Did you mean centered"),
    ],
)
def test_a_wrong_setting_says_what_is_wrong(options: dict, error: type, says: str) -> None:
    with pytest.raises(error) as caught:
        load_protocol(**({"name": "quick"} | options))
    assert says in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_but_the_axes_is_part_of_the_measurement(family: str) -> None:
    measurement = load_protocol("quick", settings=[f"family={family}"]).measurement()
    others = set(FAMILY_KEYS) - FAMILIES[family].keys.keys()
    later = {name for name, key in Protocol.model_fields.items() if LATER_KEY in key.metadata}
    default = later - (set() if family == "topk" else {"family"})
    off = {name for name, key in FAMILIES[family].keys.items() if key.default is None}
    assert set(measurement) == set(Protocol.model_fields) - set(AXES) - others - default - off
    assert None not in measurement.values()


@pytest.mark.parametrize("family", ["relu", "jumprelu"])
def test_a_family_key_that_is_off_leaves_no_trace_and_one_that_is_on_is_in_the_spec(
    family: str,
) -> None:
    plain = load_protocol("quick", settings=[f"family={family}"])
    aimed = load_protocol("quick", settings=[f"family={family}", "target_l0=16"])
    assert "target_l0" not in plain.measurement()
    assert aimed.measurement() == plain.measurement() | {"target_l0": 16}
    assert plain.family_settings() == {
        key: value for key, value in aimed.family_settings().items() if key != "target_l0"
    }


@pytest.mark.parametrize("setting", ["family=topk", "bias=trained", "mask_norm=null"])
def test_defaults_of_later_keys_leave_no_trace_in_a_spec(setting: str) -> None:
    """So that the hashes of cells measured before there were such keys stand."""
    plain = load_protocol("quick")
    assert load_protocol("quick", settings=[setting]).measurement() == plain.measurement()


def test_a_control_is_part_of_the_measurement() -> None:
    assert load_protocol("quick", settings=["bias=frozen"]).measurement()["bias"] == "frozen"


def test_a_key_that_became_part_of_the_arm_says_so() -> None:
    with pytest.raises(UsageError, match=r"aux_codes is not a protocol key.*--arm raw\+auxk-relu"):
        load_protocol("quick", settings=["aux_codes=relu"])


def test_a_family_brings_its_own_keys_and_they_can_be_set() -> None:
    protocol = load_protocol("quick", settings=["family=jumprelu", "bandwidth=2e-3"])
    assert protocol.family_settings() == {
        "l0": 1e-3,
        "warmup": 0.05,
        "threshold": 1e-3,
        "bandwidth": 2e-3,
    }
    assert load_protocol("quick").family_settings() == {}


@pytest.mark.parametrize(
    ("family", "path"), [("batchtopk", "sparse"), ("matryoshka", "dense"), ("relu", "dense")]
)
def test_a_family_with_one_path_takes_it_whatever_was_asked(family: str, path: str) -> None:
    assert load_protocol("quick", settings=[f"family={family}"]).path == path


def test_a_file_of_one_family_can_be_run_as_another(tmp_path) -> None:
    import yaml

    relu = load_protocol("quick", settings=["family=relu", "l1=7"])
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(relu.model_dump(mode="json")), encoding="utf-8")
    assert load_protocol(str(path)).family_settings()["l1"] == 7
    other = load_protocol(str(path), settings=["family=batchtopk"])
    assert other.family_settings() == {"threshold_rate": 0.01}
    assert "l1" not in other.measurement()


@pytest.mark.parametrize("steps", [1, 2, 5, 1000])
def test_censuses_are_log_spaced_and_include_the_last_step(steps: int) -> None:
    points = load_protocol("quick", settings=[f"steps={steps}"]).census_steps()
    assert points == sorted(set(points))
    assert points[-1] == steps
    assert points[0] >= 1
    assert len(points) <= 7


def test_no_training_means_no_census_steps() -> None:
    assert load_protocol("quick", settings=["steps=0"]).census_steps() == []


def test_a_file_of_ones_own_is_a_protocol_too(tmp_path) -> None:
    import yaml

    data = load_protocol("quick").model_dump(mode="json") | {"name": "mine", "n": 99}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert load_protocol(str(path)).n == 99
