//! What the measuring programs print, and what becomes of it.

/// Values of one row for one system.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    pub key: String,
    pub who: String,
    pub unit: String,
    /// In ascending order; at least one.
    values: Vec<f64>,
}

impl Measure {
    pub fn new(key: &str, who: &str, unit: &str, mut values: Vec<f64>) -> Option<Measure> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let own = str::to_owned;
        (!values.is_empty()).then(|| Measure { key: own(key), who: own(who), unit: own(unit), values })
    }

    /// A line `result KEY WHO UNIT VALUE VALUE …` with tabs between the first words.
    pub fn parse(line: &str) -> Option<Measure> {
        let mut words = line.strip_prefix("result\t")?.split('\t');
        let (key, who, unit) = (words.next()?, words.next()?, words.next()?);
        let values: Result<Vec<f64>, _> = words.next()?.split_whitespace().map(str::parse).collect();
        Measure::new(key, who, unit, values.ok()?)
    }

    pub fn count(&self) -> usize {
        self.values.len()
    }

    pub fn min(&self) -> f64 {
        self.values[0]
    }

    pub fn max(&self) -> f64 {
        self.values[self.values.len() - 1]
    }

    /// The value in the middle; of two, their mean.
    pub fn median(&self) -> f64 {
        let middle = self.values.len() / 2;
        if self.values.len() % 2 == 1 {
            self.values[middle]
        } else {
            self.values[middle - 1..=middle].iter().sum::<f64>() / 2.0
        }
    }

    /// The smallest value that at least 99 of 100 do not exceed: of fewer than 100, the largest.
    pub fn p99(&self) -> f64 {
        let rank = (self.values.len() * 99).div_ceil(100);
        self.values[rank.max(1) - 1]
    }
}

/// The lines of raft's example: `disk: groups of N commands: RATE commands/s` and
/// `three members: N clients: RATE writes/s, median TIME`.
pub fn raft_line(line: &str) -> Option<Measure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["disk:", "groups", "of", count, "commands:", rate, ..] => {
            Measure::new(&format!("disk-{count}"), "disk", "/s", vec![rate.parse().ok()?])
        }
        ["three", "members:", count, "clients:", rate, ..] => {
            Measure::new(&format!("raft-{count}"), "rswarm", "/s", vec![rate.parse().ok()?])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Measure {
        Measure::new("key", "who", "ms", values.to_vec()).unwrap()
    }

    #[test]
    fn a_result_line_is_read_and_anything_else_is_not() {
        let measure = Measure::parse("result\tleader-kill\tetcd\tms\t3.5 1.0 2.0").unwrap();
        assert_eq!((measure.key.as_str(), measure.who.as_str(), measure.unit.as_str()), ("leader-kill", "etcd", "ms"));
        assert_eq!((measure.count(), measure.min(), measure.median(), measure.max()), (3, 1.0, 2.0, 3.5));
        for line in ["note\tx", "result\tkey\twho\tms\t", "result\tkey\twho\tms\tfast", "result\tkey"] {
            assert_eq!(Measure::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_median_of_two_is_between_them_and_a_p99_of_few_is_the_largest() {
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(of(&[1.0]).p99(), 1.0);
        assert_eq!(of(&[2.0, 1.0, 3.0]).p99(), 3.0);
        let many: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(of(&many).p99(), 198.0);
    }

    #[test]
    fn the_lines_of_the_raft_example_are_read() {
        let disk = raft_line("disk: groups of  64 commands:    123456 commands/s").unwrap();
        assert_eq!((disk.key.as_str(), disk.who.as_str(), disk.median()), ("disk-64", "disk", 123_456.0));
        let raft = raft_line("three members: 256 clients:     20000 writes/s, median 1.5ms").unwrap();
        assert_eq!((raft.key.as_str(), raft.who.as_str(), raft.median()), ("raft-256", "rswarm", 20_000.0));
        assert_eq!(raft_line("something else"), None);
    }
}
