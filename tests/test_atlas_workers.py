"""Atlases made by other processes: the same images, whatever becomes of the processes."""

import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

import featviz as fv
from featviz.atlases import local_workers, ray_cluster
from featviz.atlases.batch_renderer import AtlasJob
from featviz.errors import FeatvizError, FeatvizWarning
from tests import nets

ROOT = str(Path(fv.__file__).parents[1])


def build(model, folder, layers=("first", "second"), **given):
    return fv.atlas(model, layers, out=folder, **{"steps": 2, "batch_size": 3, **given})


def pictures(folder):
    """Every image by its key, counted from the raw shards: a doubled key fails."""
    rows = [
        r for p in Path(folder).glob("pictures/*/*.parquet") for r in pq.read_table(p).to_pylist()
    ]
    found = {(row["objective"], row["seed"]): row["image"]["bytes"] for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture
def model():
    return nets.tiny(channels=3)


@pytest.fixture
def whole(model, tmp_path):
    """What this process makes alone."""
    build(model, tmp_path / "whole")
    return pictures(tmp_path / "whole")


class Odd(Exception):
    """An error that can be pickled, and not be read again."""

    def __init__(self, one, two):
        super().__init__(f"odd\n{one} {two}")


class Homesick(nets.Small):
    """Its second layer works only in the process that made it."""

    def __init__(self):
        super().__init__(3)
        self.home = os.getpid()
        self.second.register_forward_pre_hook(self.check)

    def check(self, *_):
        if os.getpid() != self.home:
            raise Odd("far", "away")


# Local processes.


def test_processes_make_the_same_pictures_also_if_one_dies(model, tmp_path, whole):
    killed = []

    def kill(rows):
        if not killed:
            victim = multiprocessing.active_children()[0]
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim)

    with pytest.warns(FeatvizWarning, match="a worker died; its images are rendered again"):
        build(model, tmp_path / "a", workers=2, on_stored=[kill])
    assert killed
    assert pictures(tmp_path / "a") == whole
    assert not multiprocessing.active_children()


def hooked():
    net = nets.Small(3)
    net.hook = lambda x: x
    return net


def parametrized():
    net = nets.Small(3)
    weight_norm(net.first)  # says that it cannot be pickled in a RuntimeError of two lines
    return net


@pytest.mark.parametrize("net", [hooked, parametrized])
def test_a_network_that_cannot_be_sent_is_said(tmp_path, net):
    model = fv.Model(net(), size=8)
    with pytest.raises(FeatvizError, match="the network cannot be sent to workers: ") as error:
        build(model, tmp_path, workers=2)
    assert "\n" not in str(error.value)
    assert len(build(model, tmp_path, units="0:1")) == 4


def test_what_fails_keeps_nothing_else_from_being_made(tmp_path):
    model = fv.Model(nets.seeded(Homesick), size=8)
    with pytest.raises(FeatvizError, match="4 of 7 batches failed: Odd: odd far away") as error:
        build(model, tmp_path, ["second", "first"], workers=2, transforms="none")
    assert "\n" not in str(error.value)
    assert len(pictures(tmp_path)) == 8
    assert not multiprocessing.active_children()


def test_a_stopped_worker_does_not_keep_the_others_waiting(model, tmp_path):
    def stop(rows):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGSTOP)
        raise KeyError

    begun = time.monotonic()
    with pytest.raises(KeyError):
        build(model, tmp_path, workers=2, on_stored=[stop])
    assert time.monotonic() - begun < 60
    assert not multiprocessing.active_children()


SCRIPT = """
    import os, signal, sys
    import multiprocessing
    import torch
    from torch import nn
    import featviz as fv
    from tests import nets

    class Large(nets.Small):
        def __init__(self):
            super().__init__(3)
            self.much = nn.Linear(300, 300)  # more than a pipe holds

    def kill(rows):
        if sys.argv[2:] == ["killed"]:
            for child in multiprocessing.active_children():
                print(child.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    if GUARD:
        fv.atlas(fv.Model(Large(), size=8), ["first"], out=sys.argv[1], steps=2, batch_size=1,
                 workers=2, on_stored=[kill])
"""


def script(tmp_path, guard):
    path = tmp_path / "go.py"
    path.write_text(textwrap.dedent(SCRIPT.replace("GUARD", guard)))
    return path


def run(command, tmp_path, **given):
    (tmp_path / "tmp").mkdir()
    environment = os.environ | {"PYTHONPATH": ROOT, "TMPDIR": str(tmp_path / "tmp")}
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        **given,
    )


@pytest.mark.parametrize("how", ["stdin", "unguarded", "notebook"])
def test_workers_that_cannot_start_are_said(tmp_path, how):
    path = script(tmp_path, "True")
    folder = str(tmp_path / "a")
    if how == "stdin":  # the worker dies before it has read anything
        ran = run(["-", folder], tmp_path, input=path.read_text())
    elif how == "unguarded":
        ran = run([str(path), folder], tmp_path)
    else:
        ran = run(["-c", path.read_text(), folder], tmp_path)
    assert ran.returncode == 1
    last = ran.stderr.strip().splitlines()[-1]
    assert "a worker cannot start: " in last
    assert "needs if __name__ == '__main__'" in last
    assert ("Large" in last) == (how == "notebook")
    assert not list((tmp_path / "tmp").glob("featviz-*"))


def test_workers_end_with_a_parent_that_is_killed_alone(tmp_path):
    path = script(tmp_path, "__name__ == '__main__'")
    ran = run([str(path), str(tmp_path / "a"), "killed"], tmp_path)
    assert ran.returncode == -signal.SIGKILL
    pids = ran.stdout.split()
    assert pids
    until = time.monotonic() + 60
    while any(Path("/proc", pid).exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path("/proc", pid).exists() for pid in pids)
    assert not list((tmp_path / "tmp").glob("featviz-*"))


# Which device, as far as that can be told where there is none.


@pytest.mark.parametrize(
    ("given", "here", "expected"),
    [
        (None, "cpu", "cpu"),
        ("auto", "cpu", "cpu"),
        ("cpu", "cpu", "cpu"),
        ("auto", "mps", "mps"),
        (None, "cuda:0", "cuda"),
        (None, "cuda:1", "cuda:1"),
        ("auto", "cuda:1", "cuda"),
        ("cuda", "cuda:0", "cuda"),
        ("cuda:1", "cuda:1", "cuda:1"),
        (torch.device("cuda", 0), "cuda:0", "cuda:0"),
        (torch.device("cuda"), "cuda:0", "cuda"),
    ],
)
def test_where_local_workers_work(given, here, expected):
    network = SimpleNamespace(device=torch.device(here))
    assert local_workers.place(SimpleNamespace(device=given, network=network)) == expected


def test_workers_take_gpus_in_turn_and_the_network_from_the_cpu(model, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(fv.Model, "on", lambda self, device: asked.append(str(device)) or self)
    (tmp_path / "network").write_bytes(
        local_workers.pack(AtlasJob(model, fv.Settings(), "png", device="cuda"))
    )
    assert asked == ["cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(local_workers, "BatchRenderer", lambda job: job.device)
    monkeypatch.setattr(local_workers, "_renderer", None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    numbers = multiprocessing.get_context("spawn").SimpleQueue()
    for number in range(3):
        numbers.put(number)
    taken = []
    for device in ("cuda", "cuda", "cuda", "cuda:1", "cpu"):
        local_workers._start(str(tmp_path / "network"), numbers, 1, device)
        taken.append(local_workers._renderer)
    assert taken == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cpu"]


NODE = {"Alive": True, "Resources": {"CPU": 8.0}}


@pytest.mark.parametrize(
    ("device", "have", "nodes", "workers", "expected"),
    [
        (None, {"CPU": 8}, [NODE], None, (8, "CPU", 1, "cpu")),
        (None, {"CPU": 8}, [NODE], 2, (2, "CPU", 4, "cpu")),
        (None, {"CPU": 16}, [NODE, NODE], 20, (16, "CPU", 1, "cpu")),
        (None, {"CPU": 16}, [NODE, NODE], 3, (3, "CPU", 4, "cpu")),
        ("auto", {"CPU": 8, "GPU": 2}, [NODE], None, (2, "GPU", 4, None)),
        ("cuda:1", {"CPU": 8, "GPU": 2}, [NODE], 5, (2, "GPU", 4, "cuda")),
        ("cpu", {"CPU": 8, "GPU": 2}, [NODE], None, (8, "CPU", 1, "cpu")),
        (None, {}, [{"Alive": False, "Resources": {}}], None, (1, "CPU", 1, "cpu")),
    ],
)
def test_what_is_asked_of_a_cluster(model, device, have, nodes, workers, expected):
    ray = SimpleNamespace(cluster_resources=lambda: have, nodes=lambda: nodes)
    assert (
        ray_cluster._plan_workers(
            ray, AtlasJob(model, fv.Settings(), "png", device=device), 100, workers
        )
        == expected
    )


def test_a_gpu_that_the_cluster_does_not_have(model):
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 8})
    with pytest.raises(FeatvizError, match="device is 'cuda', but the Ray cluster has no GPU"):
        ray_cluster._plan_workers(
            ray, AtlasJob(model, fv.Settings(), "png", device="cuda"), 100, None
        )


def test_errors_survive_the_way_home():
    error = local_workers.StartError("out of memory")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, local_workers.StartError)
    assert str(again) == str(error)
    assert len(local_workers.one_line(RuntimeError("long\n" * 500))) == 160


# A Ray cluster: one node of two cores.


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    pytest.importorskip("ray")
    port = free_port()
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false"]
    command += ["--object-store-memory=80000000", "--disable-usage-stats"]
    command += [f"--ray-client-server-port={free_port()}"]
    # A token in the home folder, left by another program, is no part of this.
    environment = os.environ | {"PYTHONPATH": ROOT, "RAY_AUTH_MODE": "disabled"}
    log = tmp_path_factory.mktemp("ray") / "log"
    with log.open("w") as file:
        node = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        until = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        node.terminate()
        node.wait(120)


@pytest.fixture
def ray(address):
    """A session of the user's own."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def hog(ray, count):
    """Take cores as others on a cluster do."""

    class Hog:
        def ready(self):
            return True

    hogs = [ray.remote(num_cpus=1)(Hog).remote() for _ in range(count)]
    ray.get([each.ready.remote() for each in hogs])
    return hogs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_ray_cluster_makes_the_same_pictures_also_if_a_worker_dies(
    model, tmp_path, whole, address
):
    killed = []

    def kill(rows):
        if not killed:  # Ray names its processes after what they do
            workers = [
                int(path.parent.name)
                for path in Path("/proc").glob("[0-9]*/cmdline")
                if path.read_bytes().startswith(b"ray::_Worker")
            ]
            os.kill(workers[0], signal.SIGKILL)
            killed.append(workers[0])

    build(model, tmp_path / "a", ray=address, workers=2, on_stored=[kill])
    assert killed
    assert pictures(tmp_path / "a") == whole


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_that_others_use(model, tmp_path, whole, ray, address, monkeypatch):
    hogs = hog(ray, 1)
    build(model, tmp_path / "a", ray=address, workers=2)  # one of the two finds no place
    assert pictures(tmp_path / "a") == whole
    hogs += hog(ray, 1)
    monkeypatch.setattr(ray_cluster, "START", 2.0)
    message = r"it has 2 CPUs \(0 of them free\), 0 GPUs .* 2 workers need 1 CPU each"
    with pytest.raises(FeatvizError, match=message):
        build(model, tmp_path / "b", ray=address, workers=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_fails_on_a_ray_cluster_keeps_nothing_else_from_being_made(tmp_path, ray, address):
    model = fv.Model(nets.seeded(Homesick), size=8)
    with pytest.raises(FeatvizError, match="4 of 7 batches failed: Odd: odd far away") as error:
        build(model, tmp_path, ["second", "first"], ray=address, workers=1, transforms="none")
    assert "\n" not in str(error.value)
    assert len(pictures(tmp_path)) == 8
