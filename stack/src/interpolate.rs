//! Variables in values: `$V`, `${V}`, `${V:-default}`, `${V-default}`, `${V:?message}`,
//! `${V?message}`, `${V:+other}`, `${V+other}`, and `$$` for a dollar sign.

use std::collections::BTreeMap;

use crate::report::Report;
use crate::tree::{Node, Value};

/// Sections in which variables are replaced; keys and `x-…` keep them.
const SECTIONS: [&str; 5] = ["services", "volumes", "networks", "secrets", "configs"];

/// Defaults inside defaults.
const NESTING_MAX: usize = 16;

/// Replaces variables in the values of a file.
pub fn sections(tree: &mut Node, env: &BTreeMap<String, String>, report: &mut Report<'_>) {
    if let Value::Map(entries) = &mut tree.value {
        for entry in entries.iter_mut().filter(|entry| SECTIONS.contains(&entry.key.as_str())) {
            node(&mut entry.value, &entry.key, env, report);
        }
    }
}

fn node(node: &mut Node, path: &str, env: &BTreeMap<String, String>, report: &mut Report<'_>) {
    let place = node.place;
    match &mut node.value {
        Value::Text(text) if text.contains('$') => {
            let mut unset = Vec::new();
            match expand(text, env, &mut unset) {
                Ok(expanded) => *text = expanded,
                Err(message) => {
                    report.error(place, format!("{path}: {message}"));
                    node.value = Value::Broken;
                }
            }
            for name in unset {
                report.warn(format!("The \"{name}\" variable is not set. Defaulting to a blank string."));
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| self::node(item, path, env, report)),
        Value::Map(entries) => {
            for entry in entries {
                self::node(&mut entry.value, &format!("{path}.{}", entry.key), env, report);
            }
        }
        _ => {}
    }
}

/// Replaces the variables of one text; names of unset ones are pushed to `unset`.
///
/// # Errors
/// On a malformed variable, or a required one that is missing.
pub fn expand(text: &str, env: &BTreeMap<String, String>, unset: &mut Vec<String>) -> Result<String, String> {
    let mut out = String::new();
    let rest = expand_until(text, None, env, unset, 0, &mut out).map_err(|error| match error {
        Failure::Format => {
            format!("invalid interpolation format: \"{text}\"; write $$ for a dollar sign, or ${{NAME}} for a variable")
        }
        Failure::Nesting => format!("\"{text}\" has defaults nested more than {NESTING_MAX} levels deep"),
        Failure::Missing { name, message } if message.is_empty() => {
            format!("required variable {name} is missing a value")
        }
        Failure::Missing { name, message } => format!("required variable {name} is missing a value: {message}"),
    })?;
    debug_assert!(rest.is_empty(), "text is expanded to its end");
    Ok(out)
}

enum Failure {
    Format,
    Nesting,
    Missing { name: String, message: String },
}

/// Expands up to an unnested `end` (or the end of the text) and returns what follows it.
///
/// In the word of an operator (where `end` is given) only `${…}` is replaced and every other dollar
/// sign stays, as Docker leaves it: `${HASH:-$2y$05$…}` is in real files.
fn expand_until<'t>(
    text: &'t str,
    end: Option<char>,
    env: &BTreeMap<String, String>,
    unset: &mut Vec<String>,
    level: usize,
    out: &mut String,
) -> Result<&'t str, Failure> {
    let mut rest = text;
    loop {
        let Some(stop) = rest.find(|c| c == '$' || Some(c) == end) else {
            out.push_str(rest);
            return if end.is_some() { Err(Failure::Format) } else { Ok("") };
        };
        out.push_str(&rest[..stop]);
        if !rest[stop..].starts_with('$') {
            return Ok(&rest[stop + 1..]);
        }
        let after = &rest[stop + 1..];
        if let Some(braced) = after.strip_prefix('{') {
            rest = braces(braced, env, unset, level, out)?;
        } else if end.is_some() {
            out.push('$');
            rest = after;
        } else if let Some(next) = after.strip_prefix('$') {
            out.push('$');
            rest = next;
        } else {
            let (name, next) = split_name(after).ok_or(Failure::Format)?;
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => unset.push(name.into()),
            }
            rest = next;
        }
    }
}

/// Expands `NAME}` or `NAME OPERATOR WORD}` and returns what follows the brace.
fn braces<'t>(
    text: &'t str,
    env: &BTreeMap<String, String>,
    unset: &mut Vec<String>,
    level: usize,
    out: &mut String,
) -> Result<&'t str, Failure> {
    if level >= NESTING_MAX {
        return Err(Failure::Nesting);
    }
    let (name, rest) = split_name(text).ok_or(Failure::Format)?;
    let value = env.get(name);
    if let Some(next) = rest.strip_prefix('}') {
        match value {
            Some(value) => out.push_str(value),
            None => unset.push(name.into()),
        }
        return Ok(next);
    }
    // With a colon, an empty value counts as none.
    let (value, rest) = match rest.strip_prefix(':') {
        Some(rest) => (value.filter(|v| !v.is_empty()), rest),
        None => (value, rest),
    };
    let operator = rest.chars().next().filter(|c| "-?+".contains(*c)).ok_or(Failure::Format)?;
    let mut word = String::new();
    let mut unset_in_word = Vec::new();
    let next = match expand_until(&rest[1..], Some('}'), env, &mut unset_in_word, level + 1, &mut word) {
        // A word that is not used may name what is missing.
        Err(Failure::Missing { .. }) if value.is_some() != (operator == '+') => {
            skip(&rest[1..]).ok_or(Failure::Format)?
        }
        result => result?,
    };
    match (operator, value) {
        ('-' | '?', Some(value)) => out.push_str(value),
        ('-', None) | ('+', Some(_)) => {
            out.push_str(&word);
            unset.append(&mut unset_in_word);
        }
        ('+', None) => {}
        _ => return Err(Failure::Missing { name: name.into(), message: word }),
    }
    Ok(next)
}

/// What follows the brace that closes an unused word.
fn skip(text: &str) -> Option<&str> {
    let mut open = 1;
    let mut previous = ' ';
    for (index, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(&text[index + 1..]);
        }
        previous = c;
    }
    None
}

/// A name of letters, digits and `_`, not beginning with a digit, and what follows it.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    (!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())).then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> BTreeMap<String, String> {
        [("SET", "value"), ("EMPTY", ""), ("N", "3"), ("_x1", "y")].map(|(k, v)| (k.to_string(), v.to_string())).into()
    }

    #[test]
    fn every_operator_works_for_set_empty_and_unset() {
        for (text, expanded, unset) in [
            ("plain", "plain", ""),
            ("$SET", "value", ""),
            ("${SET}", "value", ""),
            ("a$SET-b", "avalue-b", ""),
            ("a${SET}b${N}", "avalueb3", ""),
            ("${_x1}", "y", ""),
            ("$NOPE", "", "NOPE"),
            ("a${NOPE}b", "ab", "NOPE"),
            ("$EMPTY", "", ""),
            ("${SET:-d}", "value", ""),
            ("${EMPTY:-d}", "d", ""),
            ("${NOPE:-d}", "d", ""),
            ("${NOPE:-}", "", ""),
            ("${SET-d}", "value", ""),
            ("${EMPTY-d}", "", ""),
            ("${NOPE-d}", "d", ""),
            ("${SET:?e}", "value", ""),
            ("${SET?e}", "value", ""),
            ("${EMPTY?e}", "", ""),
            ("${SET:+a}", "a", ""),
            ("${EMPTY:+a}", "", ""),
            ("${NOPE:+a}", "", ""),
            ("${SET+a}", "a", ""),
            ("${EMPTY+a}", "a", ""),
            ("${NOPE+a}", "", ""),
            ("$$SET", "$SET", ""),
            ("$${SET}", "${SET}", ""),
            ("$$$SET", "$value", ""),
            ("${NOPE:-${SET}}", "value", ""),
            ("${NOPE:-${ALSO:-a${N}b}}c", "a3bc", ""),
            ("${NOPE:-$SET/$$x}", "$SET/$$x", ""),
            ("${NOPE:-$2y$05$abc}", "$2y$05$abc", ""),
            ("${NOPE:-${ALSO}}", "", "ALSO"),
            ("${SET:-${ALSO}}", "value", ""),
            ("${SET:-${ALSO:?e}}x", "valuex", ""),
            ("${NOPE:+${ALSO:?e}}x", "x", ""),
            ("${NOPE:-http://a:80/?b=c&d}", "http://a:80/?b=c&d", ""),
            ("${NOPE:-{a}", "{a", ""),
        ] {
            let mut names = Vec::new();
            assert_eq!(expand(text, &env(), &mut names).as_deref(), Ok(expanded), "{text}");
            assert_eq!(names.join(","), unset, "{text}");
        }
    }

    #[test]
    fn a_missing_required_variable_says_its_message() {
        for (text, message) in [
            ("${NOPE:?tell me}", "required variable NOPE is missing a value: tell me"),
            ("${EMPTY:?tell me}", "required variable EMPTY is missing a value: tell me"),
            ("${NOPE?need ${SET}}", "required variable NOPE is missing a value: need value"),
            ("${NOPE:?}", "required variable NOPE is missing a value"),
            ("${NOPE:-${ALSO:?inner}}", "required variable ALSO is missing a value: inner"),
        ] {
            assert_eq!(expand(text, &env(), &mut Vec::new()), Err(message.into()), "{text}");
        }
    }

    #[test]
    fn malformed_variables_are_refused() {
        for text in [
            "$",
            "a$ b",
            "${",
            "${}",
            "${SET",
            "${1A}",
            "$1",
            "${SET!x}",
            "${SET:x}",
            "${SET:-a",
            "${ SET}",
            "${SET:-${N}",
            "$-",
            "${A:}",
        ] {
            let error = expand(text, &env(), &mut Vec::new()).expect_err(text);
            assert!(error.starts_with(&format!("invalid interpolation format: \"{text}\"")), "{error}");
        }
        let deep = format!("{}x{}", "${A:-".repeat(20), "}".repeat(20));
        assert!(expand(&deep, &env(), &mut Vec::new()).unwrap_err().contains("nested more than 16"));
    }
}
