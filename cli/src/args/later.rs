//! Flags that Docker has and we have not yet: read, so that they can be refused by name.

use std::marker::PhantomData;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Id};

use crate::errors::{Error, Result};

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
