"""The command line, as a user meets it: output, exit status, one line for what cannot work."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import featviz as fv
from featviz.cli import options
from featviz.cli.main import ALIASES, COMMANDS, main, shield
from featviz.io import images
from tests import nets

FAST = ["--steps", "2", "--size", "64"]


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    return status, *capsys.readouterr()


def refused(capsys, *arguments):
    status, out, err = run(capsys, *arguments)
    assert status == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("featviz: ")
    assert "Traceback" not in err
    return err


def test_models(capsys):
    status, out, _ = run(capsys, "models")
    assert status == 0
    assert "efficientnet_lite0" in out
    assert "torchvision:NAME" in out
    status, out, _ = run(capsys, "models", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["efficientnet_lite0"]["installed"] is True


def test_layers(capsys, lite0):
    status, out, _ = run(capsys, "layers", "efficientnet_lite0", "--json")
    assert status == 0
    document = json.loads(out)
    rows = {row["name"]: row for row in document["layers"]}
    assert rows["_blocks.10"] == {
        "name": "_blocks.10",
        "type": "MBConvBlock",
        "shape": [112, 14, 14],
        "units": 112,
        "calls": 1,
    }
    assert {n for n, _ in lite0.net.named_modules() if n} - set(rows) <= {"_blocks"}
    status, out, _ = run(capsys, "layers", "efficientnet_lite0")
    assert "_blocks.10 " in out


def test_render_writes_one_picture(capsys, tmp_path):
    out = tmp_path / "a.png"
    status, text, err = run(
        capsys, "render", "efficientnet_lite0", "channel:_blocks.1:3", "-o", out, *FAST
    )
    assert (status, err) == (0, "")
    assert "channel:_blocks.1:3  seed 0  score" in text
    assert nets.opened(out).size == (64, 64)
    kept = images.read_settings(out)
    assert kept["model"] == "efficientnet_lite0"
    assert (kept["steps"], kept["seed"], kept["size"]) == (2, [0], [64, 64])
    assert kept["version"]


def test_render_writes_a_sheet_json_and_separate_files(capsys, tmp_path):
    out = tmp_path / "a.png"
    status, text, _ = run(
        capsys, "render", "efficientnet_lite0", "channel:_blocks.1:3", "-channel:_blocks.1:3",
        'class:"daisy"', "-o", out, *FAST, "--json", "--separate", "--seed", "7",
    )  # fmt: skip
    assert status == 0
    document = json.loads(text)
    assert document["objective"] == [
        "channel:_blocks.1:3",
        "-channel:_blocks.1:3",
        'class:"daisy"',
    ]
    assert document["seed"] == [7, 8, 9]
    assert len(document["files"]) == 4
    assert all(Path(f).exists() for f in document["files"])
    assert nets.opened(out).size[0] > 3 * 64


def test_from_repeats_a_picture(capsys, tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    run(
        capsys, "render", "efficientnet_lite0", "channel:_blocks.1:3 - 0.5*channel:_blocks.1:4",
        "-o", first, "--steps", "3", "--size", "48x64", "--seed", "5", "--lr", "0.2",
        "--param", "pixel:range=clamp", "--transforms", "jitter:4,noise:0.05",
    )  # fmt: skip
    status, *_ = run(capsys, "render", "--from", first, "-o", second)
    assert status == 0
    assert np.array_equal(nets.opened(first), nets.opened(second))
    assert images.read_settings(first) == images.read_settings(second)
    third = tmp_path / "c.png"
    run(capsys, "render", "--from", first, "-o", third, "--steps", "5")
    assert images.read_settings(third)["steps"] == 5


def test_relational_objectives_render_and_repeat(capsys, tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    given = ["render", "efficientnet_lite0", "class:1 + diversity:_blocks.1", "--seed", "3,9"]
    status, _, err = run(capsys, *given, "-o", first, *FAST, "--separate")
    assert (status, err) == (0, "")
    assert images.read_settings(first)["seed"] == [3, 9]
    status, *_ = run(capsys, "render", "--from", first, "-o", second)
    assert status == 0
    assert np.array_equal(nets.opened(first), nets.opened(second))
    run(capsys, "render", "--from", first, "-o", second, "--seed", "4,5")
    assert images.read_settings(second)["seed"] == [4, 5]
    (one, *_) = tmp_path.glob("a.class*seed3.png")
    assert "its goal has no text form" in refused(capsys, "render", "--from", one, "-o", second)


def test_a_picture_that_ended_early_is_not_repeated_as_if_it_had_not(capsys, tmp_path, lite0):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    fv.render(
        lite0, "channel:_blocks.1:3", steps=9, size=64, callbacks=[lambda s: s.index == 2]
    ).save(first)
    err = refused(capsys, "render", "--from", first, "-o", second)
    assert "ended after 3 of 9 steps" in err
    assert run(capsys, "render", "--from", first, "-o", second, "--steps", "3")[0] == 0


def test_tensorboard_option(capsys, tmp_path):
    status, *_ = run(
        capsys, "render", "efficientnet_lite0", "channel:_blocks.1:3", "-o", tmp_path / "a.png",
        *FAST, "--tensorboard", tmp_path / "logs",
    )  # fmt: skip
    assert status == 0
    assert list((tmp_path / "logs").glob("events*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["render", "efficientnet_lit0", "class:1", "-o", "a.png"], "did you mean 'efficientnet_lite0'"),
        (["layers", "alexnet"], "no model 'alexnet'; known: efficientnet_lite0"),
        (["layers", "torchvision:resnet50"], "torchvision.*pip install torchvision|does not import"),
        (["layers", "timm:resnet50"], "pip install timm"),
        (["layers", "no.such.module:factory"], "No module named 'no'"),
        (["render", "efficientnet_lite0", "channel:block.3:1", "-o", "a.png"], "no layer 'block.3'; did you mean '_blocks.3'"),
        (["render", "efficientnet_lite0", "channel:_blocks.3:999", "-o", "a.png"], "it has 0 to "),
        (["render", "efficientnet_lite0", "neuron:_blocks.10:3:99:0", "-o", "a.png"], "its map is 14x14"),
        (["render", "efficientnet_lite0", "channel:_blocks.3:", "-o", "a.png"], r"_blocks\.3:\^ "),
        (["render", "efficientnet_lite0", "class:1", "-o", "a.png", "--steps", "-4"], "steps must be positive"),
        (["render", "efficientnet_lite0", "class:1", "-o", "a.png", "--steps", "x"], "'x' is not a valid integer"),
        (["render", "efficientnet_lite0", "class:1", "-o", "nowhere/a.png"], "there is no folder"),
        (["render", "efficientnet_lite0", "class:1", "-o", "a.txt"], "names no image format"),
        (["render", "efficientnet_lite0", "-o", "a.png"], "at least one objective"),
        (["render", "--from", "README.md", "-o", "a.png"], "not an image"),
        (["render", "--from", "nowhere.png", "-o", "a.png"], "No such file"),
        (["render", "efficientnet_lite0", "class:1", "-o", "a.png", "--size", "big"], "is not a size"),
        (["render", "efficientnet_lite0", "class:1", "-o", "a.png", "--device", "warp"], "no device 'warp'"),
        (["render", "efficientnet_lite0", "class:1", "-o", "a.png", "--param", "fuorier"], "did you mean 'fourier'"),
        (["render", "efficientnet_lite0", "class:1", "-o", "a.png", "--colums", "3"], "No such option|no such option"),
        (["rendr", "efficientnet_lite0"], "did you mean 'render'"),
        (["layers", ":x"], "write package.module:function"),
        (["layers", "json:loads"], "json:loads failed: TypeError"),
        (["render", "efficientnet_lite0", "l1:constant=nan", "-o", "a.png"], "finite number"),
        (["render", "efficientnet_lite0", "class:1", "-o", "a.png", "--seed", "x"], "is not a seed"),
        (["render", "efficientnet_lite0", "class:1", "-o", "a.png", "--transforms", "rotate:nan"], "must be a number"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(capsys, tmp_path, monkeypatch, arguments, message):
    if "README.md" in arguments:
        (tmp_path / "README.md").write_text("# no image")
    monkeypatch.chdir(tmp_path)
    err = refused(capsys, *arguments)
    assert re.search(message, err), err
    assert not (tmp_path / "a.png").exists()


def test_an_objective_without_gradient_is_status_2(capsys, tmp_path, monkeypatch):
    (tmp_path / "dead_net.py").write_text(
        "import torch, featviz as fv\n"
        "def make():\n"
        "    conv = torch.nn.Conv2d(3, 2, 3)\n"
        "    torch.nn.init.constant_(conv.bias, 50.0)\n"
        "    with torch.no_grad(): conv.bias[1] = -50\n"
        "    return fv.Model(torch.nn.Sequential(conv, torch.nn.ReLU()), size=16)\n"
    )
    monkeypatch.chdir(tmp_path)
    err = refused(capsys, "render", "dead_net:make", "channel:1:1", "-o", "a.png", "--steps", "20")
    assert "channel:1:1 has no gradient" in err
    status, _, err = run(
        capsys, "render", "dead_net:make", "channel:1:0", "channel:1:1", "-o", "a.png",
        "--steps", "20",
    )  # fmt: skip
    assert status == 2
    assert len(err.splitlines()) == 1
    assert (tmp_path / "a.png").exists()  # what could be rendered is not lost


@pytest.mark.parametrize(
    ("argument", "shielded"),
    [
        ("-channel:a:1", True),
        ("-0.5*channel:a:1", True),
        ("-(class:1)", True),
        ("-total_variation", True),
        ("-multiscale_variation:scales=2", True),
        ("-l2:constant=0.5", True),
        ("-1e-3*class:1", True),
        ("-mean(class:1, class:2)", True),
        ("- -class:1", True),
        ("--channel:a:1", False),
        ("-o", False),
        ("--steps", False),
        ("-4", False),
        ("class:1", False),
    ],
)
def test_objectives_with_a_minus_are_no_options(argument, shielded):
    assert shield(argument) == (f" {argument}" if shielded else argument)


def test_ctrl_c_saves_what_there_is_and_exits_with_130(tmp_path):
    out = tmp_path / "a.png"
    command = [
        sys.executable, "-m", "featviz", "render", "efficientnet_lite0", "class:1",
        "-o", str(out), "--steps", "100000", "--size", "64", "--tensorboard", str(tmp_path / "log"),
    ]  # fmt: skip
    # A shell in the background hands SIGINT down as ignored; the terminal's is the default.
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not list(tmp_path.glob("log/events*")) and time.monotonic() < deadline:
                time.sleep(0.2)  # the event file appears right before the first step
            time.sleep(3)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert f"featviz: interrupted; saved {out}" in err
    assert nets.opened(out).size == (64, 64)


def test_help(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "render" in out
    status, out, _ = run(capsys, "render", "--help")
    assert "OBJECTIVES" in out


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "models"])
def test_help_shows_each_example_on_a_line_of_its_own(capsys, command):
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    assert "\\b" not in out
    assert "\b" not in out
    assert max(map(len, out.splitlines())) <= 80
    if command != "layers":
        name = ALIASES.get(command, command)
        assert re.search(rf"^  featviz {name} ", out, re.MULTILINE)


def test_without_arguments_it_prints_its_help(capsys):
    status, out, err = run(capsys)
    assert (status, err) == (0, "")
    assert out == run(capsys, "--help")[1]
    assert re.search(r"^  featviz models$", out, re.MULTILINE)


def test_version(capsys):
    assert run(capsys, "--version")[1] == f"featviz, version {fv.__version__}\n"


def test_quiet_writes_the_file_and_nothing_else(capsys, tmp_path):
    out = tmp_path / "a.png"
    assert run(capsys, "render", "efficientnet_lite0", "class:1", "-o", out, *FAST, "-q") == (
        0, "", "",
    )  # fmt: skip
    assert out.exists()


def test_the_default_output_is_named_after_the_objective_and_overwrites_nothing(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(capsys, "render", "efficientnet_lite0", "class:1", *FAST)[0] == 0
    assert {p.name for p in tmp_path.iterdir()} == {"class-1.png", "class-1-2.png"}


def test_options_come_from_the_environment(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATVIZ_RENDER_STEPS", "3")
    out = tmp_path / "a.png"
    run(capsys, "render", "efficientnet_lite0", "class:1", "-o", out, "--size", "64")
    assert images.read_settings(out)["steps"] == 3


def test_completion(capsys, monkeypatch):
    monkeypatch.setenv("_FEATVIZ_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "featviz ren")
    monkeypatch.setenv("COMP_CWORD", "1")
    with contextlib.suppress(SystemExit):
        main([])
    assert "plain,render" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("saved", "line"),
    [(["a.png"], "featviz: interrupted; saved a.png\n")],
)
def test_ctrl_c_says_what_was_saved(capsys, saved, line):
    assert options.status(True, saved) == 130
    assert capsys.readouterr().err == line
    assert options.status(False, saved, failed=True) == 2


def test_help_does_not_import_torch():
    code = "import sys\nfrom featviz.cli.main import main\nmain(['--help'])\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
