//! Errors and warnings as they are found, and readers of values that report what does not fit.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use rswarm_types::parse::{ParseError, parse_bytes, parse_cpus, parse_duration};
use rswarm_types::units::{Bytes, NanoCpus};

use crate::keys;
use crate::scalar::number_text;
use crate::tree::{Entry, Node, Place, Value};
use crate::{ComposeFile, Location, Stack, StackError};

/// Errors that are listed; a file that is no compose file at all has no use for more.
const ERRORS_MAX: usize = 500;

/// What was found so far.
pub struct Report<'a> {
    files: &'a [ComposeFile],
    errors: Vec<StackError>,
    /// More errors than are kept were found.
    is_full: bool,
    warnings: Vec<String>,
    warned: BTreeSet<String>,
    /// Keys that Docker ignores too.
    pub unsupported: BTreeSet<&'static str>,
    /// Keys without meaning, with the reason.
    pub deprecated: BTreeSet<(&'static str, &'static str)>,
}

impl<'a> Report<'a> {
    pub fn new(files: &'a [ComposeFile]) -> Self {
        Self {
            files,
            errors: Vec::new(),
            is_full: false,
            warnings: Vec::new(),
            warned: BTreeSet::new(),
            unsupported: BTreeSet::new(),
            deprecated: BTreeSet::new(),
        }
    }

    pub fn error(&mut self, place: Place, message: impl Into<String>) {
        let location = self.files.get(place.file).map(|file| Location {
            file: file.path.clone(),
            line: place.line,
            column: place.column,
        });
        self.push(StackError { location, message: message.into() });
    }

    fn push(&mut self, error: StackError) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        } else {
            self.is_full = true;
        }
    }

    /// Whether further errors would not be listed.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    pub fn error_anywhere(&mut self, message: impl Into<String>) {
        self.push(StackError { location: None, message: message.into() });
    }

    /// A warning, said once however often it comes.
    pub fn warn(&mut self, message: String) {
        if self.warned.insert(message.clone()) {
            self.warnings.push(message);
        }
    }

    pub fn into_errors(mut self) -> Vec<StackError> {
        let order = |error: &StackError| {
            let file = error.location.as_ref().and_then(|l| self.files.iter().position(|f| f.path == l.file));
            (file, error.location.as_ref().map(|l| (l.line, l.column)))
        };
        self.errors.sort_by_cached_key(order);
        self.errors.dedup();
        if self.is_full {
            self.errors.push(StackError {
                location: None,
                message: format!("more than {ERRORS_MAX} errors; the rest is not listed"),
            });
        }
        self.errors
    }

    /// The stack with its warnings, or all errors.
    pub fn finish(mut self, mut stack: Stack) -> Result<Stack, Vec<StackError>> {
        if !self.errors.is_empty() {
            return Err(self.into_errors());
        }
        if !self.unsupported.is_empty() {
            let names: Vec<&str> = self.unsupported.iter().copied().collect();
            self.warnings.push(format!("Ignoring unsupported options: {}", names.join(", ")));
        }
        if !self.deprecated.is_empty() {
            let lines: Vec<String> = self.deprecated.iter().map(|(name, why)| format!("{name}: {why}")).collect();
            self.warnings.push(format!("Ignoring deprecated options:\n\n{}", lines.join("\n\n")));
        }
        stack.warnings = self.warnings;
        Ok(stack)
    }

    fn wrong_kind(&mut self, path: &str, node: &Node, expected: &str) {
        if node.value == Value::Broken {
            return;
        }
        let hint = match node.value {
            Value::Number(_) | Value::Bool(_) | Value::Time(_) if expected.contains("string") => "; put it in quotes",
            _ => "",
        };
        self.error(node.place, format!("{path} is {}; expected {expected}{hint}", node.kind()));
    }

    /// A problem with a value, in the words of the reader that refused it.
    pub fn refuse(&mut self, path: &str, place: Place, error: &ParseError) {
        self.error(place, format!("invalid {path} {error}"));
    }

    /// The entries of a mapping whose keys are all known; `x-…` is passed over.
    pub fn map<'n>(&mut self, path: &str, node: &'n Node, known: &[&str]) -> &'n [Entry] {
        let entries = self.any_map(path, node);
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str()) && !is_extension(&entry.key)) {
            self.unknown(path, entry, known);
        }
        entries
    }

    /// A key that nobody knows.
    pub fn unknown(&mut self, path: &str, entry: &Entry, known: &[&str]) {
        if !self.is_full {
            self.error(entry.place, keys::unknown(path, &entry.key, known));
        }
    }

    /// The entries of a mapping with keys of the user's choice.
    pub fn any_map<'n>(&mut self, path: &str, node: &'n Node) -> &'n [Entry] {
        if !matches!(node.value, Value::Map(_)) {
            self.wrong_kind(path, node, "a mapping");
        }
        node.entries()
    }

    /// The items of a list.
    pub fn list<'n>(&mut self, path: &str, node: &'n Node) -> &'n [Node] {
        if !matches!(node.value, Value::List(_)) {
            self.wrong_kind(path, node, "a list");
        }
        node.items()
    }

    /// A string; numbers are refused as by Docker, since YAML has already eaten their form.
    pub fn text(&mut self, path: &str, node: &Node) -> Option<String> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            _ => {
                self.wrong_kind(path, node, "a string");
                None
            }
        }
    }

    /// A string or a number, as Go prints it; nothing for an empty value.
    pub fn text_or_number(&mut self, path: &str, node: &Node) -> Option<Option<String>> {
        match &node.value {
            Value::Null => Some(None),
            Value::Text(text) => Some(Some(text.clone())),
            Value::Number(text) => Some(Some(number_text(text).unwrap_or_else(|| text.clone()))),
            _ => {
                self.wrong_kind(path, node, "a string or a number");
                None
            }
        }
    }

    /// A string where a number means itself: `cpus: 0.5`, `memory: 512`.
    fn quantity(&mut self, path: &str, node: &Node) -> Option<String> {
        self.text_or_number(path, node)?.or_else(|| {
            self.wrong_kind(path, node, "a string or a number");
            None
        })
    }

    /// Strings of a list.
    pub fn texts(&mut self, path: &str, node: &Node) -> Vec<(Place, String)> {
        let items = self.list(path, node);
        items.iter().filter_map(|item| Some((item.place, self.text(path, item)?))).collect()
    }

    /// One string, or a list of them.
    pub fn one_or_more(&mut self, path: &str, node: &Node) -> Vec<(Place, String)> {
        match &node.value {
            Value::Text(text) => vec![(node.place, text.clone())],
            Value::List(_) => self.texts(path, node),
            _ => {
                self.wrong_kind(path, node, "a string or a list of strings");
                Vec::new()
            }
        }
    }

    /// A boolean; `yes`, `on`, `"true"` are taken too.
    pub fn boolean(&mut self, path: &str, node: &Node) -> Option<bool> {
        let value = match &node.value {
            Value::Bool(value) => Some(*value),
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "y" => Some(true),
                "false" | "no" | "off" | "n" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if value.is_none() {
            self.wrong_kind(path, node, "true or false");
        }
        value
    }

    /// A whole number, written plainly or as a string (from a variable).
    pub fn integer(&mut self, path: &str, node: &Node) -> Option<i64> {
        let number = match &node.value {
            Value::Number(text) | Value::Text(text) => number_text(text).and_then(|t| t.parse().ok()),
            _ => None,
        };
        if number.is_none() && node.value != Value::Broken {
            let written = match &node.value {
                Value::Number(text) | Value::Text(text) => format!("\"{text}\""),
                _ => node.kind().into(),
            };
            self.error(node.place, format!("{path} is {written}; expected a whole number"));
        }
        number
    }

    /// A whole number from 0.
    pub fn count(&mut self, path: &str, node: &Node) -> Option<u64> {
        let number = self.integer(path, node)?;
        if number < 0 {
            self.error(node.place, format!("{path} is {number}; expected 0 or more"));
        }
        u64::try_from(number).ok()
    }

    /// A number, possibly with a fraction.
    pub fn decimal(&mut self, path: &str, node: &Node) -> Option<f64> {
        let text = self.quantity(path, node)?;
        let number = text.parse().ok();
        if number.is_none() {
            self.error(node.place, format!("{path} is \"{text}\"; expected a number"));
        }
        number
    }

    /// A duration, `1m30s`.
    pub fn duration(&mut self, path: &str, node: &Node) -> Option<Duration> {
        let text = self.quantity(path, node)?;
        self.read(path, node, &text, parse_duration)
    }

    /// A duration where one of no length means the default.
    pub fn duration_or(&mut self, path: &str, node: &Node, default: Duration) -> Duration {
        self.duration(path, node).filter(|d| !d.is_zero()).unwrap_or(default)
    }

    /// A size, `512m`.
    pub fn bytes(&mut self, path: &str, node: &Node) -> Option<Bytes> {
        let text = self.quantity(path, node)?;
        self.read(path, node, &text, parse_bytes)
    }

    /// Parts of CPUs, `0.5`.
    pub fn cpus(&mut self, path: &str, node: &Node) -> Option<NanoCpus> {
        let text = self.quantity(path, node)?;
        self.read(path, node, &text, parse_cpus)
    }

    /// One of the words that a type knows.
    pub fn choice<T: std::str::FromStr<Err = ParseError>>(&mut self, path: &str, node: &Node) -> Option<T> {
        let text = self.text(path, node)?;
        self.read(path, node, &text, str::parse)
    }

    /// An address.
    pub fn address(&mut self, path: &str, place: Place, text: &str) -> Option<IpAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            self.error(place, format!("{path} is \"{text}\"; expected an address"));
        }
        address
    }

    fn read<T>(
        &mut self,
        path: &str,
        node: &Node,
        text: &str,
        parse: impl Fn(&str) -> Result<T, ParseError>,
    ) -> Option<T> {
        self.accept(path, node.place, parse(text))
    }

    /// The value, or the error on the record.
    pub fn accept<T>(&mut self, path: &str, place: Place, result: Result<T, ParseError>) -> Option<T> {
        result.map_err(|error| self.refuse(path, place, &error)).ok()
    }

    /// Keys with values, as a mapping or as a list of `KEY=VALUE`; `None` where there is no value.
    pub fn pairs(&mut self, path: &str, node: &Node) -> Vec<Pair> {
        match &node.value {
            Value::Map(entries) => entries
                .iter()
                .filter_map(|entry| {
                    let value = self.text_or_number(&format!("{path}.{}", entry.key), &entry.value)?;
                    Some(Pair { place: entry.place, key: entry.key.clone(), value })
                })
                .collect(),
            Value::List(_) => self
                .texts(path, node)
                .into_iter()
                .map(|(place, text)| match text.split_once('=') {
                    Some((key, value)) => Pair { place, key: key.into(), value: Some(value.into()) },
                    None => Pair { place, key: text, value: None },
                })
                .collect(),
            _ => {
                self.wrong_kind(path, node, "a mapping or a list of KEY=VALUE");
                Vec::new()
            }
        }
    }
}

/// A key with its value.
pub struct Pair {
    pub place: Place,
    pub key: String,
    pub value: Option<String>,
}

/// Whether the key is the user's own.
pub fn is_extension(key: &str) -> bool {
    key.starts_with("x-")
}
