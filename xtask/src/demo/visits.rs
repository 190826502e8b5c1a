//! What the counter said: numbers that rise, from several containers.

use std::collections::BTreeSet;

use crate::Result;

/// The answers seen so far, in order.
#[derive(Debug, Default)]
pub struct Visits {
    counts: Vec<u64>,
    servers: BTreeSet<String>,
}

impl Visits {
    /// Reads one answer.
    ///
    /// # Errors
    /// If it is not the counter's.
    pub fn see(&mut self, body: &str) -> Result<()> {
        let (count, server) = parse(body).ok_or_else(|| format!("not an answer of the counter: {:?}", body.trim()))?;
        self.counts.push(count);
        self.servers.insert(server.to_owned());
        Ok(())
    }

    /// How many containers served.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Every visit was counted once, and not always by the same container.
    pub fn check(&self) -> Result<()> {
        if !self.counts.is_sorted_by(|a, b| a < b) {
            return Err(format!("the count did not rise with every visit: {:?}", self.counts).into());
        }
        if self.servers.len() < 2 {
            return Err(format!("all {} visits were served by the same container", self.counts.len()).into());
        }
        Ok(())
    }
}

/// `Hello! I have been seen 3 times. served by 5f0c…`
fn parse(body: &str) -> Option<(u64, &str)> {
    let rest = body.trim().strip_prefix("Hello! I have been seen ")?;
    let (count, server) = rest.split_once(" times. served by ")?;
    Some((count.parse().ok()?, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(bodies: &[(u64, &str)]) -> Visits {
        let mut visits = Visits::default();
        for (count, server) in bodies {
            visits.see(&format!("Hello! I have been seen {count} times. served by {server}\n")).unwrap();
        }
        visits
    }

    #[test]
    fn visits_must_be_counted_and_shared() {
        assert!(seen(&[(1, "a"), (2, "b"), (5, "a")]).check().is_ok());
        assert!(seen(&[(1, "a"), (1, "b")]).check().is_err(), "counted twice");
        assert!(seen(&[(1, "a"), (2, "a")]).check().is_err(), "one server");
    }

    #[test]
    fn another_answer_is_an_error_that_shows_it() {
        let error = Visits::default().see("redis cannot be reached\n").unwrap_err();
        assert_eq!(error.to_string(), "not an answer of the counter: \"redis cannot be reached\"");
    }
}
