//! `--filter KEY=VALUE`: values of one key are alternatives, different keys must all hold; labels
//! must all hold too, as Docker's do.

use std::collections::BTreeMap;

use crate::errors::{Error, Result};

/// The filters of one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads what was given; `allowed` are the keys that the command knows.
    ///
    /// # Errors
    /// On another form or an unknown key, which it names beside the allowed ones.
    pub fn parse(given: &[String], allowed: &[&str]) -> Result<Self> {
        let mut filters = Self::default();
        for text in given {
            let wrong = |problem: String| {
                let keys = allowed.join(", ");
                Error::Usage(format!(
                    "invalid --filter \"{text}\": {problem}\n       allowed: KEY=VALUE with KEY one of {keys}"
                ))
            };
            let Some((key, value)) = text.split_once('=') else {
                return Err(wrong("no \"=\"".into()));
            };
            let (key, value) = (key.trim().to_lowercase(), value.trim());
            if !allowed.contains(&key.as_str()) {
                return Err(wrong(format!("unknown key \"{key}\"")));
            }
            filters.0.entry(key).or_default().push(value.to_owned());
        }
        Ok(filters)
    }

    /// What was given for a key.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether the key was given.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether nothing was given for the key, or `holds` for one of its values.
    pub fn any(&self, key: &str, holds: impl Fn(&str) -> bool) -> bool {
        self.0.get(key).is_none_or(|values| values.iter().any(|value| holds(value)))
    }

    /// Whether a value of the key is what `actual` begins with.
    pub fn prefix(&self, key: &str, actual: &str) -> bool {
        self.any(key, |value| actual.starts_with(value))
    }

    /// Whether a value of the key is `actual`, without regard to case.
    pub fn equals(&self, key: &str, actual: &str) -> bool {
        self.any(key, |value| actual.eq_ignore_ascii_case(value))
    }

    /// Whether all labels asked for, `NAME` or `NAME=VALUE`, are there.
    pub fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.0.get(key).is_none_or(|wanted| {
            wanted.iter().all(|text| match text.split_once('=') {
                Some((name, value)) => labels.get(name).is_some_and(|v| v == value),
                None => labels.contains_key(text),
            })
        })
    }

    /// Refuses values that the key cannot have.
    ///
    /// # Errors
    /// Names the value and what is allowed.
    pub fn check(&self, key: &str, allowed: &[&str]) -> Result<()> {
        let values = self.0.get(key).into_iter().flatten();
        match values.into_iter().find(|v| !allowed.contains(&v.to_lowercase().as_str())) {
            Some(value) => Err(Error::Usage(format!(
                "invalid --filter \"{key}={value}\": allowed values are {}",
                allowed.join(", ")
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[&str]) -> Result<Filters> {
        Filters::parse(&given.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), &["name", "label", "mode"])
    }

    #[test]
    fn values_of_a_key_are_alternatives_and_keys_must_all_hold() {
        let filters = parse(&["name=web", "name=db", "mode=global"]).unwrap();
        assert!(filters.prefix("name", "db-1") && filters.prefix("name", "web"));
        assert!(!filters.prefix("name", "redis"));
        assert!(filters.equals("mode", "Global") && !filters.equals("mode", "replicated"));
        assert!(filters.prefix("id", "anything"), "a key that was not given holds");
    }

    #[test]
    fn labels_must_all_be_there() {
        let filters = parse(&["label=zone=a", "label=ssd"]).unwrap();
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        assert!(filters.labels("label", &labels(&[("zone", "a"), ("ssd", "")])));
        assert!(!filters.labels("label", &labels(&[("zone", "a")])));
        assert!(!filters.labels("label", &labels(&[("zone", "b"), ("ssd", "")])));
    }

    #[test]
    fn unknown_keys_and_values_are_refused_with_the_allowed_ones() {
        let text = parse(&["nmae=web"]).unwrap_err().to_string();
        assert!(text.contains("unknown key \"nmae\"") && text.contains("name, label, mode"), "{text}");
        assert!(parse(&["web"]).unwrap_err().to_string().contains("no \"=\""));
        let text = parse(&["mode=job"]).unwrap().check("mode", &["replicated", "global"]).unwrap_err().to_string();
        assert!(text.contains("replicated, global"), "{text}");
    }
}
