"""How all commands of the project start and report failures."""

from nsr_jax import environment  # noqa: F401  before whatever imports JAX

# isort: split
import logging as standard_logging
import os
import pathlib
import socket
import sys
import traceback
from collections.abc import Callable, Sequence

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

import nsr_jax
from nsr_jax import agreement, project, streams
from nsr_jax.atomic_files import make_output_folder
from nsr_jax.cpu_cores import count_cores
from nsr_jax.errors import StoppedError, UserError
from nsr_jax.paths import local_path
from nsr_jax.plugins import load_plugins

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # the shell's code for SIGINT
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes when started again

DISTRIBUTED = flags.DEFINE_bool(
    'distributed',
    False,
    'Run as one process of a job that Slurm, Open MPI, Kubernetes or a TPU pod has started.',
)
COORDINATOR_ADDRESS = flags.DEFINE_string(
    'coordinator_address', None, "HOST:PORT of the job's first process; give it with the next two, or --distributed."
)
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes the job has.', lower_bound=1)
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Number of this process, from 0.', lower_bound=0)

PLUGIN = flags.DEFINE_multi_string(
    'plugin', [], 'A Python file or module with tasks, losses, metrics, networks or gates of your own; its code is run.'
)

# After this time without a sign of life a process counts as dead, and all others stop.
_HEARTBEAT_SECONDS = 60
# Flags that may differ between the processes of a job.
_OWN_FLAGS = {'distributed', 'coordinator_address', 'num_processes', 'process_id'}
_DEVICES_FLAG = '--xla_force_host_platform_device_count'


def run(main: Callable[[Sequence[str]], int | None], computes: Callable[[], bool] = lambda: True) -> None:
    """Parse absl flags and call `main(argv)`; its return value is the exit code (`None` is 0).

    A command whose `computes()` is false leaves accelerators to the processes that it starts.

    A `UserError`, a wrong flag or a wrong config is printed as one line on standard error, without a traceback, and
    gives exit code 2. Ctrl-C prints one line, too, and gives exit code 130. Any other exception is a defect and shows
    its traceback.

    Compiled programs are kept for the next command in `$JAX_COMPILATION_CACHE_DIR`, by default
    ~/.cache/nsr_jax/compilation; an empty value switches this off.
    """

    def guarded(argv: Sequence[str]) -> int | None:
        logging.set_verbosity(logging.INFO)
        logging.get_absl_handler().addFilter(_is_worth_reading)
        if not computes():
            jax.config.update('jax_platforms', 'cpu')
        _split_cores()
        try:
            _join_job()
            _find_devices()
            _check_flags()
            load_plugins(PLUGIN.value)
            _keep_compiled_programs()
            return main(argv)
        except UserError as error:
            code, words = EXIT_USER_ERROR, error
        except KeyboardInterrupt:
            code, words = EXIT_INTERRUPTED, 'by Ctrl-C'
        except StoppedError as error:
            code, words = EXIT_STOPPED, error
        except Exception as error:
            if not jax.distributed.is_initialized():
                raise
            if agreement.lost_another(error):
                code, words = EXIT_STOPPED, f'another process of the job is gone: {str(error).splitlines()[0]}'
            else:  # a defect, which the others notice when this process ends
                code, words = 1, None
                traceback.print_exc()
        streams.flush()
        if words is not None:
            streams.write_last(_last_line(words, code))
        # A usual exit waits for other processes, which may wait for this one.
        os._exit(code)

    project.make_importable()
    streams.prepare()
    app.run(guarded, flags_parser=parse_flags)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parse a command line, `argv[0]` its program, as absl does; what is wrong ends the process with one line and 2.

    Returns:
        the arguments that are no flags, after `argv[0]`.
    """
    try:
        rest = flags.FLAGS(_with_paths(argv) if 'config' in flags.FLAGS else argv)
        if 'config' in flags.FLAGS:
            _check_config_file()
        return rest
    except UserError as error:
        sys.exit(_report(error))
    except AttributeError as error:  # an override of a field that the config does not have
        sys.exit(_report(f'--config has no such field: {" ".join(str(error.args[0].args[0]).split())}'))
    except flags.UnrecognizedFlagError as error:
        sys.exit(_report(_explain(error)))
    except flags.Error as error:
        sys.exit(_report(_origin(error) if 'Error whilst parsing config file' in str(error) else error))
    except (LookupError, TypeError, ValueError, OSError) as error:  # from ml_collections, for wrong names and values
        sys.exit(_report(f'--config or one of its fields has a wrong value: {error}'))


def _explain(error: flags.UnrecognizedFlagError) -> str:
    if error.flagname.startswith('config.') and 'config' in flags.FLAGS:
        return f'--{error.flagname} overrides a field of a config, which --config has to name'
    return str(error)


def describe(module: str) -> None:
    """Make --help show the text and the flags of a module, which in an installed command is not the main one."""
    sys.modules['__main__'].__doc__ = sys.modules[module].__doc__
    for flag in flags.FLAGS.flags_by_module_dict().get(module, ()):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def check_config(check: Callable[[ml_collections.ConfigDict], None], config: ml_collections.ConfigDict) -> None:
    """Run a check of configs/, which does not know the package's exceptions; its errors become `UserError`."""
    try:
        check(config)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error


def require_config(list_configs: Callable[[], Sequence[str]]) -> None:
    """Refuse a command line without `--config`, with one line that lists the configs, which the caller knows."""

    def is_given(config: ml_collections.ConfigDict | None) -> bool:
        if config is None:
            raise UserError(f'give a config: --config={" or --config=".join(list_configs())}')
        return True

    flags.register_validator('config', is_given)


def _split_cores() -> None:
    """Make each CPU core a JAX device, unless the environment says how many to make.

    XLA computes a convolution of small images on one core; devices that share a batch compute at the same time.
    """
    if jax.config.values['jax_num_cpu_devices'] == -1 and _DEVICES_FLAG not in os.environ.get('XLA_FLAGS', ''):
        jax.config.update('jax_num_cpu_devices', count_cores())


def _join_job() -> None:
    """Connect to the job's other processes if there are any.

    Raises:
        UserError: the flags are incomplete, or the processes do not find each other.
    """
    address, count, index = COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value
    explicit = {COORDINATOR_ADDRESS.name: address, NUM_PROCESSES.name: count, PROCESS_ID.name: index}
    given = {name: value for name, value in explicit.items() if value is not None}
    if not given and not DISTRIBUTED.value:
        return
    if given and len(given) < len(explicit):
        missing = ', '.join(f'--{name}' for name in explicit if name not in given)
        raise UserError(f'a job of several processes that is described by flags needs {missing} too')
    if address is not None and count is not None and index is not None:
        _check_coordinator(address, count, index)
    try:
        jax.distributed.initialize(address, count, index, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        raise UserError(f'the processes of the job do not find each other: {str(error).splitlines()[0]}') from error


def _check_coordinator(address: str, count: int, index: int) -> None:
    """Raise `UserError` for mistakes that JAX reports late, or by ending the process."""
    host, colon, port = address.rpartition(':')
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise UserError(f'--coordinator_address={address} must be HOST:PORT, with a port from 1 to 65535')
    if index >= count:
        raise UserError(f'--process_id={index} must be below --num_processes={count}: the first process is 0')
    if index == 0:
        ipv6 = {'family': socket.AF_INET6, 'dualstack_ipv6': True} if socket.has_dualstack_ipv6() else {}
        try:
            socket.create_server(('', int(port)), **ipv6).close()
        except OSError as error:
            raise UserError(
                f'--coordinator_address={address}: this process cannot listen there ({os.strerror(error.errno or 0)}): '
                'choose a free port of the machine of process 0'
            ) from error


def _find_devices() -> None:
    """Make JAX find the devices of all processes. Raises `UserError` if there are none of the kind asked for."""
    variables = ('JAX_PLATFORMS', 'JAX_PLATFORM_NAME', 'JAX_NUM_CPU_DEVICES', 'XLA_FLAGS')
    given = ' '.join(f'{name}={os.environ[name]}' for name in variables if os.environ.get(name))
    if (count := jax.config.values['jax_num_cpu_devices']) < 1 and count != -1:
        raise UserError(f'JAX_NUM_CPU_DEVICES={count}: the number of CPU devices must be at least 1')
    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # a missing CUDA gives the latter, without a message
        reason = str(error).split('\n')[0] or 'there is no such device, or the JAX package for it is missing'
        raise UserError(f'JAX finds no device{given and f" by {given}"}: {reason}') from error
    if jax.process_count() > 1:
        logging.info(
            'process %d of %d, with %d of %d devices',
            *(jax.process_index(), jax.process_count(), jax.local_device_count(), jax.device_count()),
        )
    if jax.process_index() > 0:
        logging.set_verbosity(logging.WARNING)


def _check_flags() -> None:
    """Raise `UserError` if the processes of a job were started with different flags or configs."""
    config = flags.FLAGS['config'].value if 'config' in flags.FLAGS else None
    values = {} if config is None else {'config': config.to_dict()}
    for name in flags.FLAGS:
        is_own = name in _OWN_FLAGS or str(flags.FLAGS.find_module_defining_flag(name)).startswith('absl.')
        is_config = name == 'config' or name.startswith('config.')  # compared by value above, not by spelling
        if flags.FLAGS[name].present and not is_own and not is_config:
            values[f'--{name}'] = flags.FLAGS[name].value
    agreement.check_alike(values)


def _keep_compiled_programs() -> None:
    """Switch on JAX's persistent compilation cache, and log where it is; commands work without it, too."""
    folder = os.environ.get('JAX_COMPILATION_CACHE_DIR')
    if folder is None:
        folder = os.path.join(os.environ.get('XDG_CACHE_HOME') or '~/.cache', 'nsr_jax', 'compilation')
    reason = None
    if not folder or not jax.config.values['jax_enable_compilation_cache']:
        reason = 'switched off by the environment'
    elif '://' not in folder:  # JAX itself handles buckets
        try:
            folder = local_path(folder, '$JAX_COMPILATION_CACHE_DIR')
            folder = str(make_output_folder(folder, mode=0o700).resolve())  # private: native code in it is run
        except UserError as error:
            reason = error
    jax.config.update('jax_compilation_cache_dir', None if reason else folder)
    if reason:
        logging.info('compiled programs are not kept: %s', reason)
    else:
        logging.info('compiled programs are kept in %s', folder)


def _with_paths(argv: Sequence[str]) -> list[str]:
    """Command-line arguments with the path of the file where `--config` names one. Raises `UserError` for no name."""
    found = list(argv)
    for index, argument in enumerate(argv[1:], start=1):
        flag, equals, value = argument.partition('=')
        if flag in ('--config', '-config') and equals:
            found[index] = f'{flag}={_find_config(value)}'
        elif argv[index - 1] in ('--config', '-config'):
            found[index] = _find_config(argument)
    return found


def _find_config(value: str) -> str:
    try:
        return project.find_config(value)
    except UserError as error:
        raise UserError(f'--config={value}: {error}') from error


def _check_config_file() -> None:
    """Raise `UserError` for a missing file, which ml_collections reports only later, and for overridden sections."""
    try:
        if flags.FLAGS.config is not None:
            flags.FLAGS.config.lock()
    except OSError as error:
        path = config_flags.get_config_filename(flags.FLAGS['config'])
        raise UserError(
            f'--config={path}: no such file; of a config of the project the name is enough: sr:scale=2'
        ) from error
    for name in flags.FLAGS:
        if name.startswith('config.') and isinstance(flags.FLAGS[name].value, ml_collections.ConfigDict):
            raise UserError(f'--{name} is a section: override its fields one by one')


def _origin(error: BaseException) -> BaseException:
    """The first of a chain of errors, before libraries wrapped it in their own text."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _report(error: BaseException | str) -> int:
    sys.stderr.write(_last_line(error, EXIT_USER_ERROR))
    return EXIT_USER_ERROR


def _last_line(words: BaseException | str, code: int) -> str:
    return f'{"error" if code == EXIT_USER_ERROR else "stopped"}: {" ".join(str(words).split())}\n'


def _is_worth_reading(record: standard_logging.LogRecord) -> bool:
    """Whether a record is a warning or comes from this project: libraries log each of their steps."""
    package = pathlib.Path(nsr_jax.__file__).parent
    source = pathlib.Path(record.pathname)
    return record.levelno >= standard_logging.WARNING or package in source.parents or source.parent == package.parent
