//! Settings from environment variables.

/// Treats empty variables as unset: a supervisor often passes an unset variable on as an empty one.
pub(super) fn without_empty(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| {
        let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if is_empty { arg.env(None::<&'static str>) } else { arg }
    });
    names.iter().fold(command, |command, name| command.mut_subcommand(name, without_empty))
}
