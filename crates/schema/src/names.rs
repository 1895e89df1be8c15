//! Names of columns: system columns, reserved names, and the rule that turns a key into a name.

use std::collections::BTreeSet;

/// The partition that a row came from. It is not called `_partition`: Iceberg has a metadata column of that name, and
/// Spark refuses every scan of a table with such a column.
pub const PARTITION: &str = "_partition_id";
/// The offset of the row's record in its partition.
pub const OFFSET: &str = "_offset";
/// The timestamp of the record: the producer's or the broker's, depending on the topic's settings.
pub const TIMESTAMP: &str = "_timestamp";
/// The key of the record if it is UTF-8 (JSON tables).
pub const KEY: &str = "_key";
/// The key of the record if it is not UTF-8 (JSON tables; the column exists once such a key was seen).
pub const KEY_BYTES: &str = "_key_bytes";

/// The system columns, which the tables of all topics have.
pub const SYSTEM: &[&str] = &[PARTITION, OFFSET, TIMESTAMP, KEY, KEY_BYTES];

/// Names that a top-level key cannot have: the system columns, and the metadata columns of Iceberg (specification,
/// "Reserved Field IDs"; `MetadataColumns` of the Java library).
pub const RESERVED: &[&str] = &[
    PARTITION,
    OFFSET,
    TIMESTAMP,
    KEY,
    KEY_BYTES,
    "_change_ordinal",
    "_change_type",
    "_commit_snapshot_id",
    "_deleted",
    "_file",
    "_last_updated_sequence_number",
    "_partition",
    "_pos",
    "_row_id",
    "_spec_id",
];

/// The name of the column of JSON text beside the column `name`, before it is made unique.
pub(crate) fn text(name: &str) -> String {
    format!("{name}_json")
}

/// The name for `key` before it is made unique.
pub(crate) fn clean(key: &str) -> String {
    if key.is_empty() {
        return "empty".to_owned();
    }
    key.chars().map(|c| if c == '.' || c.is_control() { '_' } else { c }).collect()
}

/// Names that are taken, compared without regard to case.
#[derive(Debug, Default)]
pub(crate) struct Taken(BTreeSet<String>);

impl Taken {
    pub(crate) fn insert(&mut self, name: &str) {
        self.0.extend(folded(name));
    }

    /// Takes the first of `name`, `name_2`, `name_3`, … that is free.
    pub(crate) fn take_unique(&mut self, name: &str) -> String {
        let numbered = (2u64..).map(|n| format!("{name}_{n}"));
        let mut candidates = std::iter::once(name.to_owned()).chain(numbered);
        let free = candidates.find(|name| folded(name).iter().all(|name| !self.0.contains(name)));
        let free = free.expect("a finite set cannot hold every numbered name");
        self.insert(&free);
        free
    }
}

/// What engines compare instead of a name: its lower case by Unicode, and letter by letter the upper case and of that
/// the lower case (Java's `equalsIgnoreCase`, which Spark uses).
fn folded(name: &str) -> [String; 2] {
    [name.to_lowercase(), name.chars().map(fold).collect()]
}

/// A letter as `Character.toLowerCase(Character.toUpperCase(c))` of Java: a mapping to several letters does not count.
fn fold(letter: char) -> char {
    match single(letter.to_uppercase(), letter) {
        // Unicode's simple mapping; the full one adds a dot above (U+0307).
        'İ' => 'i',
        upper => single(upper.to_lowercase(), upper),
    }
}

/// The only letter, or `other` if there are several.
fn single(mut letters: impl Iterator<Item = char>, other: char) -> char {
    match (letters.next(), letters.next()) {
        (Some(one), None) => one,
        _ => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_clean_and_free() {
        for (key, name) in [
            ("x", "x"),
            ("ID", "ID_3"),
            ("a.b", "a_b_2"),
            ("", "empty"),
            ("tab\there", "tab_here"),
            ("größe", "größe"),
        ] {
            let mut taken = Taken::default();
            ["id", "id_2", "a_b"].iter().for_each(|name| taken.insert(name));
            assert_eq!(taken.take_unique(&clean(key)), name, "{key:?}");
        }
    }

    /// The first of each pair is taken.
    #[test]
    fn letters_that_fold_to_one_are_one() {
        for (first, second) in [
            ("sinir", "sınır"),
            ("gas", "gaſ"),
            ("i", "İ"),
            ("kelvin", "\u{212a}elvin"),
            ("όσος", "όσοσ"),
            ("µ", "μ"),
            ("ǆ", "ǅ"),
            ("i\u{307}", "İ"),
        ] {
            let mut taken = Taken::default();
            taken.insert(first);
            assert_eq!(taken.take_unique(second), format!("{second}_2"), "{first} and {second}");
        }
        for (first, second) in [("strasse", "straße"), ("a", "ä"), ("i", "j")] {
            let mut taken = Taken::default();
            taken.insert(first);
            assert_eq!(taken.take_unique(second), second, "{first} and {second}");
        }
    }
}
