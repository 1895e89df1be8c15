//! Version ranges, written as in the protocol's tables: `"0+"`, `"3-8"`, `"13"`.

/// A range of versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The first version.
    pub min: i16,
    /// The last version; `i16::MAX` if there is no last one.
    pub max: i16,
}

impl Versions {
    /// Every version.
    pub const ALL: Versions = Versions { min: 0, max: i16::MAX };

    /// Parses `"0+"`, `"3-8"`, `"13"` or `"none"`. It runs at compile time, so a wrong text stops the build.
    pub const fn parse(text: &str) -> Versions {
        let text = text.as_bytes();
        if let b"none" = text {
            return Versions { min: i16::MAX, max: -1 };
        }
        let (min, at) = number(text, 0);
        if at == text.len() {
            return Versions { min, max: min };
        }
        if text[at] == b'+' {
            assert!(at + 1 == text.len(), "nothing may follow the plus");
            return Versions { min, max: i16::MAX };
        }
        assert!(text[at] == b'-', "a version range reads 0+, 3-8 or 13");
        let (max, end) = number(text, at + 1);
        assert!(end == text.len(), "nothing may follow the last version");
        assert!(min <= max, "a version range goes upwards");
        Versions { min, max }
    }

    /// Whether the version is in the range.
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// The decimal number that starts at `at`, and the index after it.
const fn number(text: &[u8], mut at: usize) -> (i16, usize) {
    let start = at;
    let mut value = 0;
    while at < text.len() && text[at].is_ascii_digit() {
        value = value * 10 + (text[at] - b'0') as i16;
        at += 1;
    }
    assert!(at > start, "a version is a number");
    (value, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_as_in_the_tables() {
        assert_eq!(Versions::parse("0+"), Versions::ALL);
        assert_eq!(Versions::parse("3-12"), Versions { min: 3, max: 12 });
        assert_eq!(Versions::parse("13"), Versions { min: 13, max: 13 });
        assert!(!Versions::parse("none").contains(0));
        assert!(Versions::parse("3-8").contains(8));
        assert!(!Versions::parse("3-8").contains(9));
    }
}
