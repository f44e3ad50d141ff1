"""What an export is asked, for tests of `kdbench export`."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import torch

from kdbench.data.checks import loaded

KD = "digits-mlp/kd"
WRITTEN = {"README.md", "student.json"}


def program(folder):
    [text] = re.findall(
        r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S
    )
    return text


def answers(folder, items):
    """What the page's program predicts, in a process of its own; and what it prints."""
    np.save(folder / "items.npy", items.numpy())
    given = "np.load('items.npy')"
    code = program(folder)
    if "import numpy as np" not in code:
        given, code = f"torch.from_numpy({given})", f"import numpy as np\n{code}"
    code += f"\nnp.save('found.npy', np.asarray(predict({given})))\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(folder / "found.npy")), done.stdout


def test_items(host, name):
    data = loaded(host.dataset(name), None, False)
    return data.test.inputs, data.test.targets


test_items.__test__ = False
