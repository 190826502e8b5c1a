//! `login` and `logout`.

use std::io::{BufRead, IsTerminal, Read};

use rswarm_api::pb;
use rswarm_runtime::image::RegistryAuth;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::args::image::{Login, Logout};
use crate::client::Client;
use crate::config::{self, Config, registry_key};
use crate::errors::{Error, Result};
use crate::output::{line, note};

pub async fn login(client: &Client, args: Login) -> Result<()> {
    let path = config::path()?;
    let mut config = Config::load(&path)?;
    let registry = registry_key(args.server.as_deref().unwrap_or_default());
    if args.password.is_some() {
        note("warning: --password shows the password to other users of this machine; use --password-stdin\n");
    }
    if args.password_stdin && args.username.is_none() {
        return Err(Error::Usage("--password-stdin needs --username".into()));
    }
    let username = match args.username {
        Some(name) => name,
        None => ask_name(config.user(&registry))?,
    };
    let password = match (args.password, args.password_stdin) {
        (Some(password), _) => password,
        (None, true) => read_all()?,
        (None, false) => ask_password()?,
    };
    if username.is_empty() || password.is_empty() {
        return Err(Error::Usage("a user name and a password are needed, and neither may be empty".into()));
    }
    let auth = RegistryAuth::Password { username: username.clone(), password: password.clone() };
    let request = pb::LoginRequest { registry: host(&registry), registry_auth: auth.to_docker_header() };
    let reply = client.node(request, async |mut c, r| c.check_login(r).await).await?;
    config.remember(&registry, &username, &password, &reply.identity_token);
    config.save(&path)?;
    line(if reply.status.is_empty() { "Login Succeeded" } else { &reply.status })
}

/// What the daemon calls a registry: its host.
fn host(registry: &str) -> String {
    if registry == config::DOCKER_HUB { "docker.io".into() } else { registry.to_owned() }
}

pub fn logout(args: &Logout) -> Result<()> {
    let path = config::path()?;
    let mut config = Config::load(&path)?;
    let registry = registry_key(args.server.as_deref().unwrap_or_default());
    if !config.forget(&registry) {
        return line(&format!("Not logged in to {registry}"));
    }
    config.save(&path)?;
    line(&format!("Removing login credentials for {registry}"))
}

fn unreadable(error: std::io::Error) -> Error {
    Error::Failed(format!("standard input cannot be read: {error}"))
}

fn read_all() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).map_err(unreadable)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_line() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().read_line(&mut text).map_err(unreadable)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn need_terminal() -> Result<()> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Error::Usage("standard input is no terminal to ask on: use --username and --password-stdin".into()))
}

fn ask_name(known: Option<String>) -> Result<String> {
    need_terminal()?;
    match known {
        None => note("Username: "),
        Some(ref name) => note(&format!("Username ({name}): ")),
    }
    let name = read_line()?;
    Ok(if name.is_empty() { known.unwrap_or_default() } else { name })
}

/// The terminal as it was, when this goes.
struct Echo(Termios);

impl Drop for Echo {
    fn drop(&mut self) {
        // The terminal is the user's; there is nobody else to tell.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
        note("\n");
    }
}

fn ask_password() -> Result<String> {
    need_terminal()?;
    note("Password: ");
    let failed = |e: rustix::io::Errno| Error::Failed(format!("the terminal's echo cannot be switched off: {e}"));
    let before = tcgetattr(std::io::stdin()).map_err(failed)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    let _echo = Echo(before);
    tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent).map_err(failed)?;
    read_line()
}
