"""Programs in the place of gcloud, kubectl and the like, which record how they are called.

They stand first on the PATH of the launch scripts, so that no test can reach a real cloud, and play
back what the test says. The scripts run in a copy of the repository's part that they need.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("gcloud", "git", "sbatch", "srun", "scontrol", "kubectl", "docker", "python3")
ODD_CONFIG = 'configs/it\'s "odd" $HOME.py'

# In bash, since Python would take most of the tests' time to start. Texts end with a zero byte: of
# a call the number of its arguments, its standard input, its name and its arguments; of the answers
# the output and the exit code of each.
PROGRAM = """#!/usr/bin/env bash
folder={folder}
IFS= read -r -d '' input
printf '%s\\0' "$#" "$input" "${{0##*/}}" "$@" >> "$folder/calls"
for answers in "$folder"/answers-*; do
  [[ -e $answers ]] || break
  mapfile -d '' texts < "$answers"
  if [[ "${{0##*/}} $*" == *"${{texts[0]}}"* ]]; then
    if ((${{#texts[@]}} > 3)); then
      printf '%s\\0' "${{texts[0]}}" "${{texts[@]:3}}" > "$answers"
    fi
    printf '%s' "${{texts[1]}}"
    exit "${{texts[2]}}"
  fi
done
"""


class Machine:
    """A machine on which the scripts run.

    Args:
        folder: Where everything about it lies.

    Attributes:
        repository: The copy of the repository.
        environment: The variables that a script sees.
    """

    def __init__(self, folder: Path):
        self._folder, self._answers = folder, 0
        self.repository = folder / "repository"
        shutil.copytree(ROOT / "launch", self.repository / "launch")
        for name in ("configs/genre_fusion.py", ODD_CONFIG, ".venv/bin/python"):
            path = self.repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o755)
        self._programs = folder / "programs"
        self._programs.mkdir()
        self.replace(*PROGRAMS)
        (folder / "home").mkdir()
        self.environment = {
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
        }

    def replace(self, *names: str) -> None:
        """Puts a stand-in in the place of these programs."""
        text = PROGRAM.format(folder=shlex.quote(str(self._folder)))
        for name in names:
            (self._programs / name).write_text(text)
            (self._programs / name).chmod(0o755)

    def answer(self, part: str, *answers: str | int | tuple[str, int]) -> None:
        """Lets the calls that hold `part` print these texts and end with these codes, in turn.

        The last one stays. The part that was given first counts.
        """
        texts = [part]
        for given in answers:
            if not isinstance(given, tuple):
                given = (given, 0) if isinstance(given, str) else ("", given)
            texts += map(str, given)
        path = self._folder / f"answers-{self._answers:02}"
        path.write_text("".join(f"{text}\0" for text in texts))
        self._answers += 1

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess:
        """Runs `launch/<script>` with the arguments; returns what became of it."""
        return subprocess.run(
            ["bash", str(self.repository / "launch" / script), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self) -> list[list[str]]:
        """Name and arguments of all calls so far."""
        return [call for call, _ in self._recorded()]

    def inputs(self) -> list[str]:
        """What each call was given on its standard input."""
        return [text for _, text in self._recorded()]

    def _recorded(self) -> list[tuple[list[str], str]]:
        path = self._folder / "calls"
        texts = path.read_text().split("\0")[:-1] if path.exists() else []
        recorded = []
        while texts:
            count, text, *rest = texts
            call, texts = rest[: int(count) + 1], rest[int(count) + 1 :]
            recorded.append((call, text))
        return recorded


def is_wrong(done: subprocess.CompletedProcess, message: str) -> bool:
    """Whether a script refused its arguments, saying what `message` (a pattern) finds."""
    return done.returncode == 2 and bool(re.search(message, done.stderr)) and not done.stdout
