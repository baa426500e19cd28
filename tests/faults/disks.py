"""Small disks: a folder of the mesh lies on a tmpfs of its own, which can be full for a while."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.registry import NotRun
from tests.faults.world import World

_ROOMY = "8g"
_TOP_UP_EVERY = 0.25


@dataclass(frozen=True)
class Disk:
    """A mounted tmpfs."""

    folder: Path

    @contextlib.asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """Inside, no byte more can be written; what is freed is taken away as well."""
        filling = asyncio.create_task(self._stay_full())
        try:
            yield
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
            self._resize(_ROOMY)

    async def _stay_full(self) -> None:
        while True:
            about = os.statvfs(self.folder)
            with contextlib.suppress(subprocess.CalledProcessError):  # somebody was faster and wrote
                self._resize(str((about.f_blocks - about.f_bfree) * about.f_frsize))
            await asyncio.sleep(_TOP_UP_EVERY)

    def _resize(self, size: str) -> None:
        _run("mount", "-o", f"remount,size={size}", str(self.folder))


async def small_disk(world: World, process: str, folder: Path) -> Disk:
    """Moves the folder to a disk of its own, for as long as this mesh lives; the process that writes there is started again for it.

    Raises NotRun where nothing may be mounted.
    """
    lab, log = world.lab, world.lab.mesh.state.log(process)
    async with lab.down(process, number=signal.SIGINT if process == "postgres" else signal.SIGTERM):
        await asyncio.to_thread(_mount, folder)
        world.afterwards.callback(_run, "umount", "--lazy", str(folder))
        said = log.stat().st_size
    await lab.until(lambda: log.stat().st_size > said, 30, f"{process} to say that it has started")
    await lab.healthy()
    return Disk(folder)


def _mount(folder: Path) -> None:
    """With what the folder held. Leaves it as it was when mounting is refused."""
    aside, about = folder.with_name(f"{folder.name}.aside"), folder.stat()
    folder.rename(aside)
    folder.mkdir()
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={_ROOMY},mode=0700,uid={about.st_uid},gid={about.st_gid}", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        folder.rmdir()
        aside.rename(folder)
        why = getattr(error, "stderr", "") or str(error)
        raise NotRun(f"a tmpfs cannot be mounted ({why.strip()}): run it as root, in a container with --cap-add SYS_ADMIN") from error
    _run("cp", "-a", f"{aside}/.", f"{folder}/")
    shutil.rmtree(aside)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)
