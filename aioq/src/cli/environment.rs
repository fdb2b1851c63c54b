//! Settings from environment variables.

/// The same command line, for which a variable that is empty is not set: what starts programs
/// passes on variables that nobody has set as empty ones.
pub(super) fn without_empty(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| {
        let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if is_empty { arg.env(None::<&'static str>) } else { arg }
    });
    names.iter().fold(command, |command, name| command.mut_subcommand(name, without_empty))
}
