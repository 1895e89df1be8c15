//! Schemas as Iceberg writes them: columns with ids, and the bounds of a column's values.

use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A schema of a table. No two of its columns have the same id or the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "Unchecked")]
pub struct Schema {
    schema_id: i32,
    #[serde(flatten)]
    columns: Struct,
}

/// A schema that was read and not checked yet.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Unchecked {
    schema_id: i32,
    #[serde(flatten)]
    columns: Struct,
}

impl TryFrom<Unchecked> for Schema {
    type Error = Error;

    fn try_from(read: Unchecked) -> Result<Schema, Error> {
        Schema::new(read.schema_id, read.columns.fields)
    }
}

impl Schema {
    /// A schema of these columns.
    ///
    /// # Errors
    /// Two columns have the same id or, in one struct, the same name.
    pub fn new(schema_id: i32, fields: Vec<Field>) -> Result<Schema, Error> {
        let mut ids = BTreeSet::new();
        check_struct(&fields, &mut ids)?;
        Ok(Schema { schema_id, columns: Struct { fields } })
    }

    /// Its number in the table.
    pub fn schema_id(&self) -> i32 {
        self.schema_id
    }

    /// The same columns under another number.
    #[must_use]
    pub fn with_schema_id(self, schema_id: i32) -> Schema {
        Schema { schema_id, ..self }
    }

    /// The columns at the top level.
    pub fn fields(&self) -> &[Field] {
        &self.columns.fields
    }

    /// The column of an id, at the top level or below a struct. The elements of lists have ids of their own, which are
    /// no columns.
    pub fn field_by_id(&self, id: i32) -> Option<&Field> {
        find(self.fields(), &|field| field.id == id)
    }

    /// The column of a name, with the names of the structs around it before it, joined by dots.
    pub fn field_by_name(&self, name: &str) -> Option<&Field> {
        let (mut fields, mut rest) = (self.fields(), name);
        loop {
            if let Some(found) = fields.iter().find(|field| field.name == rest) {
                return Some(found);
            }
            let (first, below) = rest.split_once('.')?;
            fields = match &fields.iter().find(|field| field.name == first)?.field_type {
                Type::Struct(of) => &of.fields,
                _ => return None,
            };
            rest = below;
        }
    }

    /// The ids of all columns, and of all elements of lists.
    pub fn ids(&self) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        self.each(&mut |id, _| {
            found.insert(id);
        });
        found
    }

    /// The types of all primitive values by their ids: those of columns, and those of the elements of lists.
    pub fn primitives(&self) -> BTreeMap<i32, Primitive> {
        let mut found = BTreeMap::new();
        self.each(&mut |id, of| {
            if let Type::Primitive(primitive) = of {
                found.insert(id, *primitive);
            }
        });
        found
    }

    /// The largest id of a column or of an element; 0 if there are none.
    pub fn highest_field_id(&self) -> i32 {
        self.ids().last().copied().unwrap_or(0)
    }

    fn each(&self, visit: &mut dyn FnMut(i32, &Type)) {
        self.fields().iter().for_each(|field| field.field_type.each(field.id, visit));
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Unique in all schemas of the table.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// Whether it has a value in every row.
    pub required: bool,
    /// Its type.
    #[serde(rename = "type")]
    pub field_type: Type,
    /// What a person should know of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
}

/// The type of a column. Floe makes no maps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Type {
    /// One value.
    Primitive(Primitive),
    /// Columns with names.
    Struct(Struct),
    /// Any number of values.
    List(List),
}

/// Columns with names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "struct")]
pub struct Struct {
    /// In the order of the columns.
    pub fields: Vec<Field>,
}

/// Any number of values of one type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "list", rename_all = "kebab-case")]
pub struct List {
    /// Unique among the ids of columns.
    pub element_id: i32,
    /// Whether no element is null.
    pub element_required: bool,
    /// The type of the elements.
    pub element: Box<Type>,
}

/// The types of single values that Floe has columns of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Primitive {
    /// True or false.
    Boolean,
    /// 32 bits with a sign.
    Int,
    /// 64 bits with a sign.
    Long,
    /// IEEE 754, 64 bits.
    Double,
    /// UTF-8.
    String,
    /// Bytes.
    Binary,
    /// Microseconds since 1970 in UTC, 64 bits.
    Timestamptz,
}

impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Primitive::Boolean => "boolean",
            Primitive::Int => "int",
            Primitive::Long => "long",
            Primitive::Double => "double",
            Primitive::String => "string",
            Primitive::Binary => "binary",
            Primitive::Timestamptz => "timestamptz",
        })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Primitive(primitive) => primitive.fmt(f),
            Type::Struct(_) => f.write_str("struct"),
            Type::List(list) => write!(f, "list<{}>", list.element),
        }
    }
}

impl Type {
    /// Visits this type, which has the id `id`, and those in it.
    fn each(&self, id: i32, visit: &mut dyn FnMut(i32, &Type)) {
        visit(id, self);
        match self {
            Type::Primitive(_) => {}
            Type::Struct(of) => of.fields.iter().for_each(|field| field.field_type.each(field.id, visit)),
            Type::List(list) => list.element.each(list.element_id, visit),
        }
    }
}

/// The first column that `is` holds for, at the top or below structs.
fn find<'a>(fields: &'a [Field], is: &impl Fn(&Field) -> bool) -> Option<&'a Field> {
    fields.iter().find_map(|field| match &field.field_type {
        _ if is(field) => Some(field),
        Type::Struct(of) => find(&of.fields, is),
        Type::List(list) => find_in_list(list, is),
        Type::Primitive(_) => None,
    })
}

fn find_in_list<'a>(list: &'a List, is: &impl Fn(&Field) -> bool) -> Option<&'a Field> {
    match &*list.element {
        Type::Struct(of) => find(&of.fields, is),
        Type::List(list) => find_in_list(list, is),
        Type::Primitive(_) => None,
    }
}

fn check_struct(fields: &[Field], ids: &mut BTreeSet<i32>) -> Result<(), Error> {
    let mut names = BTreeSet::new();
    for field in fields {
        if !names.insert(field.name.as_str()) {
            return Err(Error::Schema(format!("name {}", field.name)));
        }
        check(field.id, &field.field_type, ids)?;
    }
    Ok(())
}

fn check(id: i32, of: &Type, ids: &mut BTreeSet<i32>) -> Result<(), Error> {
    if !ids.insert(id) {
        return Err(Error::Schema(format!("id {id}")));
    }
    match of {
        Type::Primitive(_) => Ok(()),
        Type::Struct(of) => check_struct(&of.fields, ids),
        Type::List(list) => check(list.element_id, &list.element, ids),
    }
}

/// Bounds have the bytes of Iceberg's specification, "Binary single-value serialization". They are those of Parquet's
/// statistics, too.
impl Primitive {
    /// Refuses what is no value of this type.
    ///
    /// # Errors
    /// The number of bytes is another, or a text is not UTF-8.
    pub fn check_bound(self, bytes: &[u8]) -> Result<(), Error> {
        let is_good = match self {
            Primitive::Boolean => bytes.len() == 1,
            Primitive::Int => bytes.len() == 4,
            Primitive::Long | Primitive::Double | Primitive::Timestamptz => bytes.len() == 8,
            Primitive::String => std::str::from_utf8(bytes).is_ok(),
            Primitive::Binary => true,
        };
        let bound = || Error::Bound { of: self.to_string(), bytes: bytes.len() };
        if is_good { Ok(()) } else { Err(bound()) }
    }

    /// How two bounds of this type stand to each other; none if one of them is no value of it.
    pub fn compare_bounds(self, a: &[u8], b: &[u8]) -> Option<Ordering> {
        Some(match self {
            Primitive::Boolean | Primitive::String | Primitive::Binary => a.cmp(b),
            Primitive::Int => {
                let int = |bytes: &[u8]| Some(i32::from_le_bytes(bytes.try_into().ok()?));
                int(a)?.cmp(&int(b)?)
            }
            Primitive::Long | Primitive::Timestamptz => {
                let long = |bytes: &[u8]| Some(i64::from_le_bytes(bytes.try_into().ok()?));
                long(a)?.cmp(&long(b)?)
            }
            Primitive::Double => {
                let double = |bytes: &[u8]| Some(f64::from_le_bytes(bytes.try_into().ok()?));
                double(a)?.total_cmp(&double(b)?)
            }
        })
    }

    /// A bound of an earlier type of the column as one of this type. Int may have become long; the id stays the same,
    /// and some readers do not expect four bytes then.
    pub(crate) fn widen(self, bound: &[u8]) -> Cow<'_, [u8]> {
        match (self, <[u8; 4]>::try_from(bound)) {
            (Primitive::Long, Ok(int)) => {
                Cow::Owned(i64::from(i32::from_le_bytes(int)).to_le_bytes().to_vec())
            }
            _ => Cow::Borrowed(bound),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn primitive(id: i32, name: &str, of: Primitive) -> Field {
        Field { id, name: name.to_owned(), required: false, field_type: Type::Primitive(of), doc: None }
    }

    fn example() -> Vec<Field> {
        let inner = vec![primitive(5, "x", Primitive::Long), primitive(6, "a.b", Primitive::String)];
        let list = |id, of| List { element_id: id, element_required: false, element: Box::new(of) };
        let nested = Type::List(list(4, Type::Struct(Struct { fields: inner })));
        let numbers = Type::List(list(8, Type::Primitive(Primitive::Double)));
        vec![
            Field { required: true, ..primitive(1, "a", Primitive::Boolean) },
            Field { doc: Some("why".to_owned()), ..primitive(2, "b", Primitive::Binary) },
            Field { field_type: nested, ..primitive(3, "l", Primitive::Int) },
            Field { field_type: numbers, ..primitive(7, "n", Primitive::Int) },
            Field {
                field_type: Type::Struct(Struct { fields: vec![primitive(10, "y", Primitive::Timestamptz)] }),
                ..primitive(9, "s", Primitive::Int)
            },
        ]
    }

    #[test]
    fn a_schema_is_json_as_iceberg_has_it() {
        let schema = Schema::new(3, example()).unwrap();
        let expected = json!({
            "schema-id": 3,
            "type": "struct",
            "fields": [
                {"id": 1, "name": "a", "required": true, "type": "boolean"},
                {"id": 2, "name": "b", "required": false, "type": "binary", "doc": "why"},
                {"id": 3, "name": "l", "required": false, "type": {
                    "type": "list", "element-id": 4, "element-required": false, "element": {
                        "type": "struct", "fields": [
                            {"id": 5, "name": "x", "required": false, "type": "long"},
                            {"id": 6, "name": "a.b", "required": false, "type": "string"},
                        ],
                    },
                }},
                {"id": 7, "name": "n", "required": false, "type": {
                    "type": "list", "element-id": 8, "element-required": false, "element": "double",
                }},
                {"id": 9, "name": "s", "required": false, "type": {
                    "type": "struct", "fields": [
                        {"id": 10, "name": "y", "required": false, "type": "timestamptz"},
                    ],
                }},
            ],
        });
        assert_eq!(serde_json::to_value(&schema).unwrap(), expected);
        assert_eq!(serde_json::from_value::<Schema>(expected).unwrap(), schema);
    }

    #[test]
    fn columns_are_found_by_id_and_by_name() {
        let schema = Schema::new(0, example()).unwrap();
        let name = |id| schema.field_by_id(id).map(|field| field.name.as_str());
        assert_eq!([name(1), name(3), name(5), name(10)], [Some("a"), Some("l"), Some("x"), Some("y")]);
        assert_eq!([name(4), name(8), name(11)], [None; 3]);
        let id = |name| schema.field_by_name(name).map(|field| field.id);
        assert_eq!(
            [id("s"), id("s.y"), id("s.z"), id("a.y"), id("z.y")],
            [Some(9), Some(10), None, None, None]
        );
        let types = schema.primitives();
        assert_eq!(types.keys().copied().collect::<Vec<_>>(), [1, 2, 5, 6, 8, 10]);
        assert_eq!([types[&8], types[&6]], [Primitive::Double, Primitive::String]);
        assert_eq!(schema.ids(), BTreeSet::from_iter(1..=10));
        assert_eq!(schema.highest_field_id(), 10);
        let shown = |id: i32| schema.field_by_id(id).unwrap().field_type.to_string();
        assert_eq!([shown(2), shown(7)], ["binary", "list<double>"]);
    }

    #[test]
    fn a_schema_with_two_of_a_kind_is_refused() {
        let mut twice = example();
        twice.push(primitive(5, "other", Primitive::Int));
        let why = |fields| Schema::new(0, fields).unwrap_err().to_string();
        assert_eq!(why(twice), "two columns of the schema have the id 5");
        let mut twice = example();
        twice.push(primitive(11, "n", Primitive::Int));
        assert_eq!(why(twice), "two columns of the schema have the name n");
        let text = json!({"schema-id": 0, "type": "struct", "fields": [
            {"id": 1, "name": "a", "required": false, "type": "int"},
            {"id": 1, "name": "b", "required": false, "type": "int"},
        ]});
        assert!(serde_json::from_value::<Schema>(text).is_err());
        for foreign in [json!("decimal(9,2)"), json!({"type": "map", "key-id": 1}), json!({"type": "list"})] {
            assert!(serde_json::from_value::<Type>(foreign.clone()).is_err(), "{foreign}");
        }
    }

    #[test]
    fn bounds_are_compared_as_values() {
        let less = |of: Primitive, a: &[u8], b: &[u8]| {
            assert!(of.check_bound(a).is_ok() && of.check_bound(b).is_ok());
            assert_eq!(of.compare_bounds(a, b), Some(Ordering::Less), "{of} {a:?} {b:?}");
        };
        less(Primitive::Boolean, &[0], &[1]);
        less(Primitive::Int, &(-1_i32).to_le_bytes(), &256_i32.to_le_bytes());
        less(Primitive::Long, &(-1_i64).to_le_bytes(), &256_i64.to_le_bytes());
        less(Primitive::Timestamptz, &255_i64.to_le_bytes(), &256_i64.to_le_bytes());
        less(Primitive::Double, &(-0.0_f64).to_le_bytes(), &0.0_f64.to_le_bytes());
        less(Primitive::String, "Z".as_bytes(), "ä".as_bytes());
        less(Primitive::Binary, &[], &[0]);
        assert_eq!(Primitive::Long.compare_bounds(&[0; 8], &[0; 4]), None);
        for (of, bytes) in [
            (Primitive::Boolean, &[0; 2][..]),
            (Primitive::Int, &[0; 8]),
            (Primitive::Long, &[0; 4]),
            (Primitive::String, &[0xff]),
        ] {
            assert!(of.check_bound(bytes).is_err(), "{of}");
        }
        assert_eq!(*Primitive::Long.widen(&(-2_i32).to_le_bytes()), (-2_i64).to_le_bytes());
        assert_eq!(*Primitive::Int.widen(&[1, 0, 0, 0]), [1, 0, 0, 0]);
    }
}
