"""Every mistake in a manifest is one line that names the file and what is meant."""

import json
from pathlib import Path

import pytest

from bipose_lit.ablation.manifest import load_manifest, read_seeds
from bipose_lit.types import BiposeError

GOOD = """
question: Does recurrence help?
base: [base.yaml]
arms: {none: {}, lstm: lstm.yaml, bilstm: {model: {temporal: bilstm}}}
baseline: none
contrasts: [[bilstm, none], [bilstm, lstm]]
seeds: 3
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "base.yaml").write_text("model: {}\n")
    (tmp_path / "lstm.yaml").write_text("model: {temporal: lstm}\n")

    def make(text: str) -> Path:
        path = tmp_path / "question.yaml"
        path.write_text(text)
        return path

    return make


def test_reads_a_manifest(write):
    m = load_manifest(write(GOOD + "margin: 5e-3\nthreads: 2\n"))
    assert m.name == "question"
    assert list(m.arms) == ["none", "lstm", "bilstm"]
    assert m.arms["lstm"][0] == m.path.parent / "lstm.yaml"
    assert m.seeds == (0, 1, 2)
    assert m.contrasts == (("bilstm", "none"), ("bilstm", "lstm"))
    assert (m.margin, m.threads, m.mode, m.stage1) == (0.005, 2, "frozen", "given")


def test_plain_form_names_no_place(write, tmp_path):
    text = str(load_manifest(write(GOOD)).as_dict())
    assert str(tmp_path) not in text
    assert load_manifest(write(GOOD)).as_dict()["arms"]["lstm"]["about"] == "lstm"


def test_expected_numbers(write):
    text = "expected: {metric: 'ap[det-box]', value: 0.7, band: 0.01, source: its README, gpu_hours: null, arm: lstm}\n"
    m = load_manifest(write(GOOD + text))
    assert [(e.metric, e.arm, e.gpu_hours) for e in m.expected] == [("ap[det-box]", "lstm", None)]
    plain = m.as_dict()["expected"]
    assert json.loads(json.dumps(plain)) == plain
    assert (plain[0]["source"], plain[0]["value"]) == ("its README", 0.7)
    assert load_manifest(write(GOOD)).expected == ()


def test_axes_multiply(write):
    text = GOOD.replace(
        "arms: {none: {}, lstm: lstm.yaml, bilstm: {model: {temporal: bilstm}}}",
        "axes: {temporal: {none: {}, lstm: lstm.yaml}, size: {small: {model: {width: 1}}, big: {model: {width: 2}}}}",
    )
    text = text.replace("baseline: none", "baseline: none+small").replace(
        "[[bilstm, none], [bilstm, lstm]]", "[[lstm+big, none+big]]"
    )
    m = load_manifest(write(text))
    assert list(m.arms) == ["none+small", "none+big", "lstm+small", "lstm+big"]
    assert len(m.arms["lstm+big"]) == 2


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seeds: 3", "seedz: 3", "unknown key 'seedz'; did you mean seeds?"),
        ("seeds: 3", "seeds: [0, 1, 1]", "seeds: 1 is given twice"),
        ("seeds: 3", "seeds: many", "seeds must be a number of seeds or a list"),
        ("seeds: 3", "seeds: [-1]", "seeds must be"),
        ("seeds: 3", "seeds: 0", "seeds must be"),
        ("[bilstm, lstm]]", "[bilstm, lsmt]]", "contrasts: no arm 'lsmt'; did you mean lstm?"),
        ("[bilstm, lstm]]", "[none, bilstm]]", "named twice"),
        ("[bilstm, lstm]]", "[lstm, lstm]]", "compared with itself"),
        ("[bilstm, lstm]]", "[lstm]]", "pair [arm, control]"),
        ("baseline: none", "baseline: non", "baseline: no arm 'non'; did you mean none?"),
        ("base.yaml", "basee.yaml", "base: file basee.yaml not found"),
        ("lstm.yaml", "lstn.yaml", "did you mean lstm.yaml?"),
        ("question: Does recurrence help?", "", "'question' is missing"),
        ("{none: {}, ", "{none: {}, none: {}, ", "'none' is given twice"),
        ("{none: {}, ", "{none: {}, stage1: {}, ", "reserved"),
        ("{none: {}, ", "{none: {}, a/b: {}, ", "must consist of letters"),
        ("{none: {}, ", "{none: {}, 3: {}, ", "write it in quotes"),
        ("{none: {}, ", "{none: 5, ", "a configuration file or a mapping"),
        (
            "seeds: 3",
            "seeds: 3\nmode: frozzen",
            "mode must be one of frozen, full, not 'frozzen'; did you mean frozen?",
        ),
        ("seeds: 3", "seeds: 3\nmargin: -1", "margin must be above 0"),
        ("seeds: 3", "seeds: 3\nmargin: big", "margin must be a number"),
        ("seeds: 3", "seeds: 3\nthreads: 0", "threads must be at least 1"),
        ("seeds: 3", "seeds: 3\ntrial: 1", "trial must be true or false"),
        ("seeds: 3", "seeds: 3\nname: a b", "must consist of letters"),
        ("seeds: 3", "seeds: 3\nweights: w.safetensors", "weights: file w.safetensors not found"),
        ("seeds: 3", "seeds: 3\nstage1: per_seed", "needs stage1_config"),
        ("seeds: 3", "seeds: 3\nstage1_config: lstm.yaml", "used by stage1: per_seed alone"),
        ("seeds: 3", "seeds: 3\naxes: {a: {b: {}}}", "give either arms, or axes"),
        ("seeds: 3", "seeds: [", "broken YAML"),
        ("seeds: 3", "seeds: 3\ntune: {trials: 2, space: {}, metric: val/x}", "tune.space must map options"),
        ("seeds: 3", "seeds: 3\ntune: {trials: 2, space: {a: [1]}}", "tune: 'metric' is missing"),
        (
            "seeds: 3",
            "seeds: 3\ntune: {trials: 0, space: {a: [1]}, metric: m}",
            "trials must be a whole number above 0",
        ),
        ("seeds: 3", "seeds: 3\ntune: {trials: 2, space: {a: [1]}, metric: test/m}", "validation metric"),
        ("seeds: 3", "seeds: 3\ntune: {trials: 2, space: {a: [1]}, metric: m, seed: 1}", "need fresh ones"),
        ("seeds: 3", "seeds: 3\ntune: {trials: 2, space: {a: {low: 2, high: 1}}, metric: m}", "low < high"),
        ("seeds: 3", "seeds: 3\ntune: {trials: 2, space: {a: {low: 0, high: 1, log: true}}, metric: m}", "above 0"),
        ("seeds: 3", "seeds: 3\ntune: {trials: 2, space: {a: {lo: 0, high: 1}}, metric: m}", "a list of choices or"),
        (
            "seeds: 3",
            "seeds: 3\ntune: {trials: 2, space: {a: [1]}, metric: m, arms: {lsm: {b: [1]}}}",
            "did you mean lstm?",
        ),
        (
            "seeds: 3",
            "seeds: 3\ntune: {trials: 2, space: {a: [1]}, metric: m, arms: {lstm: {a: [1]}}}",
            "shared space already",
        ),
        ("seeds: 3", "seeds: 3\nexpected: 0.7", "expected must be a mapping"),
        ("seeds: 3", "seeds: 3\nexpected: {metric: m, value: 1, band: 1, source: s}", "'gpu_hours' is missing"),
        (
            "seeds: 3",
            "seeds: 3\nexpected: {metric: m, value: 1, band: 1, source: s, gpu_hours: null, arm: lsm}",
            "no arm 'lsm'; arms: none, lstm, bilstm",
        ),
        ("seeds: 3", "seeds: 3\ntune: {trial: 2}", "tune: unknown key 'trial'; did you mean trials?"),
    ],
)
def test_mistakes_are_one_line(write, old, new, told):
    assert old in GOOD
    path = write(GOOD.replace(old, new))
    with pytest.raises(BiposeError) as caught:
        load_manifest(path)
    line = str(caught.value)
    assert told in line
    assert line.startswith(str(path))
    assert "\n" not in line


def test_a_folder_is_no_manifest(tmp_path):
    with pytest.raises(BiposeError, match="is a folder; give a YAML file"):
        load_manifest(tmp_path)


def test_missing_manifest_without_a_neighbour(tmp_path):
    with pytest.raises(BiposeError, match=r"x.yaml not found; check the path \(the main one is experiments/"):
        load_manifest(tmp_path / "x.yaml")


def test_a_configuration_is_no_manifest(write):
    path = write("trainer: {max_steps: 1}\nmodel: {}\n")
    with pytest.raises(BiposeError, match="this is a configuration, not a manifest: train with it by 'bipose fit -c "):
        load_manifest(path)


def test_missing_manifest_suggests_a_neighbour(write):
    path = write(GOOD)
    with pytest.raises(BiposeError, match=r"not found; did you mean question\.yaml\?"):
        load_manifest(path.with_name("qestion.yaml"))


def test_seeds_count_and_list():
    assert read_seeds(2) == (0, 1)
    assert read_seeds([7, 3]) == (7, 3)
