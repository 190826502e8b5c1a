//! Commands and flags that Docker has and we have not yet: known, so that they can be refused by name.

use std::ffi::OsString;
use std::marker::PhantomData;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Id};

use crate::errors::{Error, Result};

/// Commands that are not built yet, by their group.
pub(super) const COMMANDS: &[(&str, &[&str])] = &[
    (
        "rswarm",
        &[
            "attach",
            "commit",
            "config",
            "container",
            "context",
            "cp",
            "create",
            "diff",
            "events",
            "exec",
            "export",
            "history",
            "inspect",
            "kill",
            "logs",
            "pause",
            "plugin",
            "port",
            "rename",
            "restart",
            "rm",
            "run",
            "search",
            "secret",
            "start",
            "stats",
            "stop",
            "system",
            "top",
            "unpause",
            "wait",
        ],
    ),
    ("swarm", &["ca", "unlock", "unlock-key", "update"]),
    ("stack", &["config"]),
    ("network", &["connect", "disconnect", "prune"]),
    ("volume", &["prune", "update"]),
    ("image", &["build", "history", "import", "inspect", "prune", "save", "tag"]),
];
/// Docker's second names of commands that we have under one name.
const ELSEWHERE: &[(&str, &str)] = &[
    ("images", "image ls"),
    ("load", "image load"),
    ("pull", "image pull"),
    ("push", "image push"),
    ("rmi", "image rm"),
];

/// Says of an unknown command that it is not built yet, or where it is, if Docker has it.
pub fn explain(error: clap::Error, line: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else { return honest(error) };
    let before = line.iter().skip(1).map_while(|word| word.to_str().filter(|word| word != name));
    let is_group = |word: &&str| COMMANDS.iter().any(|(group, _)| group == word);
    let group = before.filter(is_group).last().unwrap_or("rswarm");
    let path = if group == "rswarm" { format!("rswarm {name}") } else { format!("rswarm {group} {name}") };
    let is_later = COMMANDS.iter().any(|(of, names)| *of == group && names.contains(&name.as_str()));
    let elsewhere = ELSEWHERE.iter().find(|(other, _)| group == "rswarm" && other == name);
    let text = match elsewhere {
        Some((_, ours)) => format!("there is no \"{path}\": it is \"rswarm {ours}\"\n"),
        None if is_later => format!("\"{path}\" is not built yet\n"),
        None => return error,
    };
    clap::Error::raw(ErrorKind::InvalidSubcommand, text)
}

/// Without the advice to pass an unknown flag as a value: no value begins with a dash.
fn honest(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::StyledStrs(tips)) = error.remove(ContextKind::Suggested) {
        let kept: Vec<_> = tips.into_iter().filter(|tip| !tip.to_string().contains("as a value")).collect();
        if !kept.is_empty() {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(kept));
        }
    }
    error
}

/// The flags of one command: names with whether they take a value.
pub trait LaterFlags {
    const FLAGS: &'static [(&'static str, bool)];
}

/// Which of the flags of `T` were given.
#[derive(Clone, Debug)]
pub struct Later<T> {
    given: Vec<&'static str>,
    of: PhantomData<T>,
}

impl<T> Default for Later<T> {
    fn default() -> Self {
        Self { given: Vec::new(), of: PhantomData }
    }
}

impl<T> Later<T> {
    /// Refuses what was given.
    ///
    /// # Errors
    /// An error for each flag.
    pub fn refuse(&self) -> Result<()> {
        Error::gather(self.given.iter().map(|flag| Error::Usage(format!("--{flag} is not built yet"))).collect())
    }
}

impl<T: LaterFlags> FromArgMatches for Later<T> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let mut later = Self::default();
        later.update_from_arg_matches(matches)?;
        Ok(later)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        let is_given = |name: &str| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
        self.given = T::FLAGS.iter().map(|(name, _)| *name).filter(|name| is_given(name)).collect();
        Ok(())
    }
}

impl<T: LaterFlags> Args for Later<T> {
    fn augment_args(command: Command) -> Command {
        T::FLAGS.iter().fold(command, |command, (name, takes_value)| {
            let action = if *takes_value { ArgAction::Append } else { ArgAction::SetTrue };
            let arg = Arg::new(Id::from(*name)).long(*name).action(action).allow_hyphen_values(true);
            command.arg(arg.help_heading("Not built yet, refused").help("").value_name("VALUE"))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Names the flags of a command.
macro_rules! later {
    ($name:ident { $($flag:literal $(= $value:ident)?),+ $(,)? }) => {
        #[derive(Clone, Debug, Default)]
        pub struct $name;
        impl $crate::args::later::LaterFlags for $name {
            const FLAGS: &'static [(&'static str, bool)] =
                &[$(($flag, $crate::args::later::takes_value!($($value)?))),+];
        }
    };
}
macro_rules! takes_value {
    () => {
        false
    };
    (VALUE) => {
        true
    };
}
pub(crate) use {later, takes_value};
