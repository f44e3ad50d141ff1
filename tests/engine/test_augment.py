"""Augmentation: each sample against a slow form, and the distribution of the draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from kdbench.engine import augment
from kdbench.engine.augment import Crops
from kdbench.vision import torchvision

RARE = 1e-4  # below this the seeded draws are not taken to be from the distribution


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def bytes_of(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream(seed))


def uniform(counts):
    return stats.chisquare(np.asarray(counts).ravel()).pvalue > RARE


def independent(one, two):
    """Whether two columns of small whole numbers are, by their table of counts."""
    table = torch.zeros(int(one.max()) + 1, int(two.max()) + 1)
    table.index_put_((one, two), torch.ones(len(one)), accumulate=True)
    return stats.chi2_contingency(table.numpy()).pvalue > RARE


# --- crop and flip -------------------------------------------------------------------


def test_every_crop_is_a_window_of_the_padded_image():
    images = bytes_of(3, 2, 5, 7)
    padded = F.pad(images, (2,) * 4)
    crops = Crops(images, 2)
    for item in range(3):
        for down in range(5):
            for right in range(5):
                draw = torch.tensor([[item], [down], [right]])
                [crop] = crops.at(crops.starts(*draw))
                expected = padded[item, :, down : down + 5, right : right + 7]
                assert torch.equal(crop, expected)


def test_crops_of_a_batch_are_each_their_own_and_centres_the_images():
    images = bytes_of(40, 3, 8, 8)
    crops = Crops(images, 3)
    items = torch.randperm(40, generator=stream())
    down, right = augment.draw_crops(40, 3, stream(1))
    batch = crops.at(crops.starts(items, down, right))
    padded = F.pad(images, (3,) * 4)
    for crop, i, y, x in zip(batch, items, down, right, strict=True):
        assert torch.equal(crop, padded[i, :, y : y + 8, x : x + 8])
    assert torch.equal(crops.at(crops.centres(items)), images[items])


def test_crop_offsets_are_uniform_and_samples_independent():
    down, right = augment.draw_crops(81 * 500, 4, stream())
    assert uniform(torch.bincount(9 * down + right, minlength=81))
    assert independent(down, right)
    assert independent(down[:-1], down[1:])
    assert independent(right[:-1], right[1:])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_flip_mirrors_the_chosen_only(dtype, channels, layout):
    images = bytes_of(33, channels, 6, 5).to(dtype, memory_format=layout)
    before = images.clone()
    mirror = augment.draw_mirrors(33, stream())
    assert 0 < mirror.sum() < 33
    for old, new, is_mirrored in zip(
        images, augment.flip(images, mirror), mirror, strict=True
    ):
        assert torch.equal(new, old.flip(2) if is_mirrored else old)
    assert torch.equal(images, before)


def test_half_are_mirrored_and_samples_are_independent():
    mirror = augment.draw_mirrors(40_000, stream())
    assert stats.binomtest(int(mirror.sum()), 40_000).pvalue > RARE
    assert independent(mirror[:-1].long(), mirror[1:].long())


# --- cutout --------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 3, 4, 30])
@pytest.mark.parametrize("fill", [0, 128])
def test_cutout_fills_a_square_around_the_centre(side, fill):
    """Whole inside, cut off at the edge, or larger than the image."""
    images = bytes_of(60, 3, 7, 9).clamp_(1, 127)
    centres = augment.draw_centres(60, images.shape, stream())
    for dtype in (torch.uint8, torch.float32):
        result = augment.cutout(images.to(dtype), centres, side, fill)
        assert result.dtype == dtype
        for old, new, (row, column) in zip(
            images, result, centres.tolist(), strict=True
        ):
            expected = old.to(dtype)
            for y in range(row - side // 2, row - side // 2 + side):
                for x in range(column - side // 2, column - side // 2 + side):
                    if 0 <= y < 7 and 0 <= x < 9:
                        expected[:, y, x] = fill
            assert torch.equal(new, expected)


def test_cutout_centres_are_uniform_over_the_pixels():
    centres = augment.draw_centres(63 * 500, torch.Size([1, 3, 7, 9]), stream())
    assert uniform(torch.bincount(9 * centres[:, 0] + centres[:, 1], minlength=63))
    assert independent(centres[:, 0], centres[:, 1])
    assert independent(centres[:-1, 0], centres[1:, 0])


# --- random resized crop -------------------------------------------------------------


def test_boxes_are_distributed_as_those_of_torchvision():
    size, transforms = (40, 56), torchvision("transforms")
    ours = augment.draw_boxes(3000, torch.Size([1, 3, *size]), stream()).double()
    scale, ratio = augment.RESIZED_SCALE, augment.RESIZED_RATIO
    draw = transforms.RandomResizedCrop.get_params
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        image = torch.zeros(3, *size)
        theirs = [draw(image, list(scale), list(ratio)) for _ in range(3000)]
    theirs = torch.tensor(theirs).double()
    for number in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 3] / b[:, 2],
        lambda b: b[:, 0] / (size[0] - b[:, 2] + 1),
        lambda b: b[:, 1] / (size[1] - b[:, 3] + 1),
    ):
        assert stats.ks_2samp(number(ours), number(theirs)).pvalue > RARE
    assert (ours[:, 0] + ours[:, 2] <= 40).all()
    assert (ours[:, 1] + ours[:, 3] <= 56).all()
    assert (ours[:, :2] >= 0).all()


@pytest.mark.parametrize("size", [(10, 100), (100, 10), (50, 50)])
def test_a_box_that_never_fits_is_the_largest_in_the_middle(size):
    scale, ratio = (4.0, 4.0), (3 / 4, 4 / 3)
    draw = torchvision("transforms").RandomResizedCrop.get_params
    expected = draw(torch.zeros(3, *size), list(scale), list(ratio))
    shape = torch.Size([1, 3, *size])
    boxes = augment.draw_boxes(5, shape, stream(), scale, ratio)
    assert boxes.tolist() == [list(expected)] * 5


@pytest.mark.parametrize("size", [(16, 16), (40, 24), (64, 64)])
def test_boxes_are_resized_as_pil_does(size):
    from PIL import Image

    functional = torchvision("transforms.functional")
    images = bytes_of(20, 3, 40, 48)
    boxes = augment.draw_boxes(20, images.shape, stream())
    result = augment.resized(images, boxes, *size)
    assert result.dtype == torch.uint8
    for image, box, ours in zip(images, boxes.tolist(), result, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        theirs = functional.pil_to_tensor(
            functional.resized_crop(picture, *box, list(size))
        )
        assert (ours.int() - theirs.int()).abs().max() <= 1


# --- mixup and cutmix ----------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_draws_from_beta(alpha):
    shares = augment.draw_shares(20_000, alpha, stream()).double()
    deviation = 0.5 / (2 * alpha + 1) ** 0.5
    assert abs(shares.mean() - 0.5) < 5 * deviation / 20_000**0.5
    assert abs(shares.std() - deviation) < 0.005
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > RARE
    assert abs(np.corrcoef(shares[:-1], shares[1:])[0, 1]) < 5 / 20_000**0.5


def test_shares_of_a_tiny_alpha_are_numbers():
    shares = augment.draw_shares(1000, 1e-3, stream())
    assert ((shares >= 0) & (shares <= 1)).all()
    assert 400 < (shares > 0.5).sum() < 600


@pytest.mark.parametrize("shape", [(24, 3, 4, 4), (24, 5)])
def test_mixup_blends_each_sample_with_its_partner(shape):
    inputs = torch.randn(shape, generator=stream(5))
    mixed = augment.mixup(inputs, stream(), 0.4)
    assert sorted(mixed.partner.tolist()) == list(range(24))
    assert len(mixed.share.unique()) == 24
    for i, (other, share) in enumerate(zip(mixed.partner, mixed.share, strict=True)):
        expected = share * inputs[i] + (1 - share) * inputs[other]
        torch.testing.assert_close(mixed.inputs[i], expected)


def test_cutmix_pastes_one_box_and_counts_its_pixels():
    """Images filled with their own number, so that each pixel tells whose it is."""
    numbers = torch.arange(200.0).view(-1, 1, 1, 1)
    mixed = augment.cutmix(numbers.expand(200, 2, 9, 11), stream())
    clipped = 0
    for i in range(200):
        image, other = mixed.inputs[i], mixed.partner[i]
        assert torch.equal(image[0], image[1])
        if other == i:
            continue
        pasted = image[0] == other
        assert ((image[0] == i) | pasted).all()
        assert mixed.share[i] == 1 - pasted.sum() / 99
        rows, columns = pasted.any(1), pasted.any(0)
        assert pasted.sum() == rows.sum() * columns.sum()  # a full rectangle
        clipped += bool(rows[0] | rows[-1] | columns[0] | columns[-1])
    assert 0 < clipped < 200


def paper_share(rng, height, width, alpha):
    """The pixel share left, drawn one at a time as in the paper's appendix A."""
    part = np.sqrt(1 - rng.beta(alpha, alpha))
    tall, wide = int(height * part), int(width * part)
    row, column = rng.integers(height), rng.integers(width)
    box = np.zeros((height, width), bool)
    top, left = row - tall // 2, column - wide // 2
    box[max(0, top) : max(0, top + tall), max(0, left) : max(0, left + wide)] = True
    return 1 - box.mean()


def test_cutmix_areas_are_distributed_as_in_the_paper():
    ours = augment.cutmix(torch.zeros(4000, 1, 32, 32), stream(), 1.0).share
    rng = np.random.default_rng(1)
    theirs = [paper_share(rng, 32, 32, 1.0) for _ in range(4000)]
    assert stats.ks_2samp(ours.numpy(), theirs).pvalue > RARE
    assert abs(np.corrcoef(ours[:-1], ours[1:])[0, 1]) < 5 / 4000**0.5


@pytest.mark.parametrize("mix", [augment.mixup, augment.cutmix])
def test_the_same_stream_mixes_the_same_bits(mix):
    inputs = torch.randn(16, 3, 8, 8, generator=stream(5))
    before = inputs.clone()
    one, two, other = (
        mix(inputs, stream(1)),
        mix(inputs, stream(1)),
        mix(inputs, stream(2)),
    )
    assert torch.equal(one.inputs, two.inputs)
    assert torch.equal(one.partner, two.partner)
    assert torch.equal(one.share, two.share)
    assert not torch.equal(one.inputs, other.inputs)
    assert torch.equal(inputs, before)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_gives_what_the_cpu_does():
    images, device = bytes_of(32, 3, 16, 16), torch.device("cuda")
    items = torch.arange(32)
    offsets = augment.draw_crops(32, 2, stream())
    mirror = augment.draw_mirrors(32, stream())
    boxes = augment.draw_boxes(32, images.shape, stream())
    results = []
    for place in (torch.device("cpu"), device):
        there = images.to(place)
        crops = Crops(there, 2)
        starts = crops.starts(items, *offsets).to(place)
        views = augment.flip(crops.at(starts), mirror.to(place))
        small = augment.resized(there, boxes, 12, 12)
        mixed = augment.cutmix(there.float(), stream())
        results.append([views.cpu(), small.cpu(), mixed.inputs.cpu()])
    (views, small, mixed), (views_there, small_there, mixed_there) = results
    assert torch.equal(views, views_there)
    assert (small.int() - small_there.int()).abs().max() <= 1
    assert torch.equal(mixed, mixed_there)
