//! `--placement-pref`.

use super::ParseError;
use crate::spec::SpreadPreference;

const ALLOWED: &str = "spread=node.labels.KEY or spread=engine.labels.KEY";

/// Reads `spread=DESCRIPTOR`.
///
/// # Errors
/// On another strategy, or a descriptor that is no label.
pub fn parse_placement_pref(text: &str) -> Result<SpreadPreference, ParseError> {
    match text.split_once('=') {
        Some((strategy, descriptor)) if strategy.trim() == "spread" => {
            let descriptor = descriptor.trim();
            match check_spread(descriptor) {
                Some(problem) => Err(ParseError::new(text, problem, ALLOWED)),
                None => Ok(SpreadPreference { descriptor: descriptor.into() }),
            }
        }
        Some((strategy, _)) => Err(ParseError::new(text, format!("unknown strategy \"{strategy}\""), ALLOWED)),
        None => Err(ParseError::new(text, "no \"=\"", ALLOWED)),
    }
}

/// What is wrong with a descriptor, if anything.
pub fn check_spread(descriptor: &str) -> Option<String> {
    let key = descriptor.strip_prefix("node.labels.").or_else(|| descriptor.strip_prefix("engine.labels."));
    match key {
        Some(key) if !key.is_empty() && !key.contains(char::is_whitespace) => None,
        _ => Some(format!("descriptor is \"{descriptor}\", not a node or engine label")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_over_labels_only() {
        assert_eq!(parse_placement_pref("spread=node.labels.zone").unwrap().descriptor, "node.labels.zone");
        for (text, problem) in [
            ("node.labels.zone", "no \"=\""),
            ("binpack=node.labels.zone", "unknown strategy \"binpack\""),
            ("spread=node.id", "descriptor is \"node.id\", not a node or engine label"),
            ("spread=node.labels.", "descriptor is \"node.labels.\", not a node or engine label"),
        ] {
            assert_eq!(parse_placement_pref(text).unwrap_err().problem, problem, "{text}");
        }
    }
}
