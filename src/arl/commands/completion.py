"""Shell completion of commands, options and paths."""

from typing import Literal

from arl.cli import build_full_parser


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print the completion script of a shell.

    The script completes commands, options, choices and paths.

    Args:
        shell: The shell that reads the script.

    Examples:
        arl completion bash > ~/.local/share/bash-completion/completions/arl
        arl completion zsh > ~/.zfunc/_arl
        arl completion fish > ~/.config/fish/completions/arl.fish
    """
    # Only this command needs it.
    import shtab

    print(shtab.complete(build_full_parser(file_completion=shtab.FILE), shell=shell))
