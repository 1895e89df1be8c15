//! Raw tables: key, value and headers as they are.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryBuilder, ListArray, StringBuilder, StructArray},
    buffer::{OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Fields},
};

use crate::{
    column::{Bytes, binaries},
    row::Row,
};

/// The columns of a raw table after its system columns.
#[derive(Debug)]
pub(crate) struct RawColumns {
    key: Bytes,
    value: Bytes,
    header_ends: Vec<i32>,
    header_keys: StringBuilder,
    header_values: BinaryBuilder,
}

impl RawColumns {
    pub(crate) fn new() -> RawColumns {
        RawColumns {
            key: Bytes::new(),
            value: Bytes::new(),
            header_ends: Vec::new(),
            header_keys: StringBuilder::new(),
            header_values: BinaryBuilder::new(),
        }
    }

    pub(crate) fn push(&mut self, at: usize, row: &Row<'_>) {
        if let Some(key) = row.key {
            self.key.push(at, key);
        }
        if let Some(value) = row.value {
            self.value.push(at, value);
        }
        for (key, value) in row.headers {
            // Kafka's clients write only UTF-8 here. A broken key shows replacement characters.
            self.header_keys.append_value(String::from_utf8_lossy(key));
            self.header_values.append_option(value.as_ref());
        }
        let count = self.header_end()
            + i32::try_from(row.headers.len()).expect("a record has fewer than 2^31 headers");
        self.header_ends.push(count);
    }

    fn header_end(&self) -> i32 {
        self.header_ends.last().copied().unwrap_or(0)
    }

    pub(crate) fn finish(mut self, fields: &Fields, rows: usize) -> Vec<ArrayRef> {
        let DataType::List(element) = fields[2].data_type() else { unreachable!("headers are a list") };
        let DataType::Struct(members) = element.data_type() else { unreachable!("a header is a struct") };
        let header: Vec<ArrayRef> =
            vec![Arc::new(self.header_keys.finish()), Arc::new(self.header_values.finish())];
        let headers = StructArray::new(members.clone(), header, None);
        let offsets: Vec<i32> = std::iter::once(0).chain(self.header_ends).collect();
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let list = ListArray::new(Arc::clone(element), offsets, Arc::new(headers), None);
        vec![binaries(self.key, rows), binaries(self.value, rows), Arc::new(list)]
    }
}
