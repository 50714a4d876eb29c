"""The commands that the documentation prints: in blocks and in sentences of its pages, and in docstrings."""

import ast
import pathlib
import re
import shlex
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
SOURCES = sorted(
    path
    for place in ('*.py', 'nsr_jax/*.py', 'configs/**/*.py', 'benchmarks/*.py', 'experiments/*.py')
    for path in ROOT.glob(place)
)

BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r'`([^`]+)`')
_LAUNCHERS = re.compile(r'examples/launch/\w+\.(sh|yaml)')
_SCRIPT = re.compile(r'train\.py|eval\.py')
_MODULE = re.compile(r'(nsr_jax|benchmarks|experiments)(\.\w+)*')
_SHORT = {
    'nsr-train': 'train.py',
    'nsr-eval': 'eval.py',
    'nsr-restore': 'nsr_jax.restore',
    'nsr-score': 'nsr_jax.score',
    'nsr-sweep': 'nsr_jax.sweep',
}


class Command(NamedTuple):
    """A program of the project with its arguments; `place` is the file that prints it."""

    place: str
    program: str
    arguments: tuple[str, ...]

    def __str__(self):
        return f'{self.place}: {self.program} {" ".join(self.arguments)}'


def commands():
    """All of them, in the order of the pages; a command in a sentence counts if it has flags."""
    found = []
    for path in PAGES:
        place, text = str(path.relative_to(ROOT)), path.read_text(encoding='utf-8')
        for language, block in BLOCK.findall(text):
            if not language:
                found += [each for line in lines(block) for each in commands_of(line, place)]
        found += [each for span in spans(text) for each in commands_of(span, place) if ' --' in span]
    for path in SOURCES:
        place, text = str(path.relative_to(ROOT)), ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
        indented = '\n'.join(line for line in text.splitlines() if line.startswith('    '))
        found += [each for line in lines(indented) for each in commands_of(line.strip(), place)]
    return list(dict.fromkeys(found))


def python_blocks(name):
    """The Python code on a page."""
    return [
        block for language, block in BLOCK.findall((ROOT / name).read_text(encoding='utf-8')) if language == 'python'
    ]


def lines(block):
    """The lines of a shell's input, each with those that continue it."""
    return block.replace('\\\n', ' ').splitlines()


def spans(text):
    """The code within sentences, each on one line."""
    return [' '.join(span.split()) for span in _SPAN.findall(BLOCK.sub('', text))]


def commands_of(line, place):
    """The programs of the project that a line of a shell's input calls."""
    words = words_of(line)
    starts = []
    for index, word in enumerate(words):
        before = words[index - 1] if index else ''
        begins = index == 0 and words[1:] and words[1].startswith('--')  # as in: `eval.py --report` writes …
        is_program = _SCRIPT.fullmatch(word) and before.endswith('python')
        is_module = _MODULE.fullmatch(word) and before == '-m'
        if is_program or is_module or (begins and (_SCRIPT.fullmatch(word) or _MODULE.fullmatch(word))):
            starts.append((index, word))
        elif word in _SHORT or (_LAUNCHERS.fullmatch(word) and 'sweep' not in word):  # these choose a workdir
            starts.append((index, _SHORT.get(word, 'train.py')))
    found = []
    for index, program in starts:
        end = next((n for n in range(index, len(words)) if re.fullmatch('[;&|<>()]+', words[n])), len(words))
        arguments = [word for word in words[index + 1 : end] if word not in ('…', 'start', 'stop')]
        if not words[index].startswith('examples/') or arguments:
            found.append(Command(place, program, tuple(arguments)))
    return found


def words_of(line):
    """The words of a line of a shell's input, without its comment; none if it is something else."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:  # a quotation mark without its partner: no command
        return []
