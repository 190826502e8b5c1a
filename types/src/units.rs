//! Numbers that carry their unit.

use std::fmt;
use std::time::Duration;

/// Milliseconds of cluster time, or of Unix time where a field says "wall".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampMs(pub u64);

impl TimestampMs {
    /// The moment `by` later, saturating.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero when it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    /// Binary units with up to one decimal, e.g. `1.5GiB`, as Docker prints memory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut unit = 0;
        let mut scale = 1u64;
        while unit + 1 < UNITS.len() && self.0 / scale >= 1024 {
            scale *= 1024;
            unit += 1;
        }
        let tenths = u128::from(self.0) * 10 / u128::from(scale);
        let (whole, tenth) = (tenths / 10, tenths % 10);
        if tenth == 0 { write!(f, "{whole}{}", UNITS[unit]) } else { write!(f, "{whole}.{tenth}{}", UNITS[unit]) }
    }
}

/// Billionths of one CPU; 1_000_000_000 = one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoCpus(pub u64);

impl fmt::Display for NanoCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if part == 0 {
            write!(f, "{whole}")
        } else {
            write!(f, "{whole}.{}", format!("{part:09}").trim_end_matches('0'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_cpus_print_as_people_write_them() {
        assert_eq!(Bytes(512).to_string(), "512B");
        assert_eq!(Bytes(1536 << 20).to_string(), "1.5GiB");
        assert_eq!(Bytes(64 << 20).to_string(), "64MiB");
        assert_eq!(NanoCpus(500_000_000).to_string(), "0.5");
        assert_eq!(NanoCpus(2_000_000_000).to_string(), "2");
    }
}
