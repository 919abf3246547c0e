"""TensorBoard's own reader finds what the callback wrote."""

import io
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import featviz as fv
from featviz.io.event_files import open_events


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_images_scores_and_gradient_norms_of_every_objective(tmp_path):
    model = fv.load("efficientnet_lite0")
    goals = ["channel:_blocks.1:3", "-channel:_blocks.1:4"]
    board = fv.callbacks.TensorBoard(tmp_path, every=2, scalars_every=1)
    result = fv.render(model, goals, steps=5, size=64, callbacks=[board])
    events = read(tmp_path)
    scalars, images = events.Tags()["scalars"], events.Tags()["images"]
    assert len(images) == 2
    assert len(scalars) == 4
    tag = next(t for t in images if t == "image/channel-_blocks.1-3/seed0")
    assert [e.step for e in events.Images(tag)] == [0, 2, 4, 5]
    last = np.asarray(Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string)))
    wanted = (result.images[0] * 255).movedim(0, -1).numpy()
    assert np.abs(last - wanted).max() <= 1  # its writer truncates instead of rounding
    scores = [e.value for e in events.Scalars("score/channel-_blocks.1-3/seed0")]
    np.testing.assert_allclose(scores, result.history[:, 0], rtol=1e-6)
    norms = [e.value for e in events.Scalars("gradient_norm/channel-_blocks.1-3/seed0")]
    assert len(norms) == 5
    assert min(norms) > 0


def test_a_folder_that_cannot_be_written(tmp_path, tiny):
    (tmp_path / "file").write_text("")
    board = fv.callbacks.TensorBoard(tmp_path / "file")
    with pytest.raises(fv.FeatvizError, match="cannot write"):
        fv.render(tiny, "class:0", steps=1, callbacks=[board])


def test_closing_after_an_interrupted_notice_waits_for_a_second(tmp_path):
    """A signal can come between an event's entry in the queue and the notice that it is there."""
    writer = open_events(tmp_path)
    writer.add_scalar("a", 1, 0)
    queue = writer.file_writer.event_writer._async_writer._byte_queue
    queue.join()
    queue.not_empty.notify, notify = lambda: None, queue.not_empty.notify
    writer.add_scalar("a", 2, 1)
    queue.not_empty.notify = notify
    begun = time.monotonic()
    writer.close()
    assert time.monotonic() - begun < 30  # by default it is 120
    assert [e.value for e in read(tmp_path).Scalars("a")] == [1, 2]
