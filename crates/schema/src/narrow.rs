//! Narrowing: a schema without the columns of some keys. It is the way back for a table whose columns were used up by
//! keys that were values (`{"user-1": …, "user-2": …}`).

use crate::{table::TableSchema, widen::count};

impl TableSchema {
    /// Columns in use, nested ones and elements of lists included ([`crate::limits::COLUMNS_MAX`]). System columns do
    /// not count.
    pub fn columns_used(&self) -> usize {
        count(&self.slots)
    }

    /// The schema without the columns of the top-level keys for which `drops` is true. Their ids are never used again:
    /// a record that has such a key later gets a new column. Values in files stay there, and no column shows them.
    #[must_use]
    pub fn without(&self, drops: impl Fn(&str) -> bool) -> TableSchema {
        let mut next = self.clone();
        next.slots.retain(|slot| !drops(&slot.key));
        if next.slots != self.slots {
            next.version += 1;
        }
        next
    }
}

/// Whether a key matches a pattern, in which each `*` stands for any text.
pub fn matches(pattern: &str, key: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = key.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoder, Kind, Row};

    fn decoded(schema: TableSchema, value: &str) -> TableSchema {
        let mut decoder = Decoder::new(schema);
        let value = Some(value.as_bytes());
        let row = Row { partition: 0, offset: 0, timestamp: 0, key: None, value, headers: &[] };
        decoder.push(&row).expect("it is a row");
        decoder.finish().0
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, key) in
            [("a", "a"), ("*", ""), ("*", "x"), ("a*", "a"), ("a*c", "abc"), ("*b*", "abc"), ("a*a", "aa")]
        {
            assert!(matches(pattern, key), "{pattern} {key}");
        }
        for (pattern, key) in
            [("a", "ab"), ("", "a"), ("a*", "ba"), ("a*c", "acb"), ("a*a", "a"), ("*bb*b", "bb"), ("A", "a")]
        {
            assert!(!matches(pattern, key), "{pattern} {key}");
        }
    }

    #[test]
    fn dropped_columns_make_room_and_their_ids_are_not_used_again() {
        let record = r#"{"id":1,"user-1":{"n":1},"user-2":[0.5]}"#;
        let full = decoded(TableSchema::new(Kind::Json), record);
        assert_eq!(full.columns_used(), 5);
        let narrow = full.without(|key| matches("user-*", key));
        assert_eq!((narrow.columns_used(), narrow.version()), (1, full.version() + 1));
        assert_eq!(narrow.last_column_id(), full.last_column_id());
        let again = decoded(narrow.clone(), record);
        let (old, new) = (full.columns(), again.columns());
        let of =
            |columns: &[crate::Column]| columns.iter().map(|c| (c.name.clone(), c.id)).collect::<Vec<_>>();
        assert_eq!(of(&old[4..5]), of(&new[4..5]));
        assert_eq!(of(&old)[5].0, of(&new)[5].0);
        assert!(new[5..].iter().all(|column| column.id > full.last_column_id()), "{new:?}");
        assert_eq!(narrow.without(|key| key == "none"), narrow);
        // A row of the old schema is a row of the new one, without the values of the dropped columns.
        let mut decoder = Decoder::new(full);
        let row = Row {
            partition: 0,
            offset: 0,
            timestamp: 0,
            key: None,
            value: Some(record.as_bytes()),
            headers: &[],
        };
        decoder.push(&row).expect("it is a row");
        let adapted = again.adapt(&decoder.finish().1).expect("the schema grew from that of the batch");
        let nulls: Vec<usize> = adapted.columns().iter().map(|column| column.null_count()).collect();
        assert_eq!(nulls, [0, 0, 0, 1, 0, 1, 1]);
    }
}
