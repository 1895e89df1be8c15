//! Examples of the rules, and properties over generated records: no value is lost in any order, ids and names stay
//! sound, old batches follow the schema.

use std::collections::{BTreeMap, BTreeSet};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{
    BadRecord, Column, ColumnType, Decoder, Kind, Refused, Row, TableSchema, limits,
    table::{ColumnSlot, Type},
    timestamp,
};

const TOO_MANY_COLUMNS: &str = "the record needs more than 2000 columns in its table: if keys are values there, drop \
     their columns (floe topic drop-columns) and write such keys as values";

fn row(offset: i64, value: Option<&[u8]>) -> Row<'_> {
    Row { partition: 3, offset, timestamp: 5, key: None, value, headers: &[] }
}

fn decode(schema: TableSchema, records: &[&str]) -> (TableSchema, RecordBatch, Vec<BadRecord>) {
    let mut decoder = Decoder::new(schema);
    let mut bad = Vec::new();
    for (offset, record) in (0..).zip(records) {
        match decoder.push(&row(offset, Some(record.as_bytes()))) {
            Ok(()) => {}
            Err(Refused::Bad(record)) => bad.push(record),
            Err(Refused::Full) => panic!("a test's batch is small"),
        }
    }
    let (schema, batch) = decoder.finish();
    (schema, batch, bad)
}

/// The schema in short, without system columns: `name:id:type, …`.
fn describe(columns: &[Column]) -> String {
    let of = |of: &ColumnType| match of {
        ColumnType::Struct(columns) => format!("{{{}}}", describe(columns)),
        other => describe_type(other),
    };
    columns.iter().map(|c| format!("{}:{}:{}", c.name, c.id, of(&c.of))).collect::<Vec<_>>().join(", ")
}

fn describe_type(of: &ColumnType) -> String {
    match of {
        ColumnType::Struct(columns) => format!("{{{}}}", describe(columns)),
        ColumnType::List { id, of, .. } => format!("[{id}:{}]", describe_type(of)),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn check(records: &[&str], schema: &str, rows: &Value) {
    let (table, batch, bad) = decode(TableSchema::new(Kind::Json), records);
    assert_eq!(bad, [], "{records:?}");
    assert_eq!(describe(&table.columns()[4..]), schema, "{records:?}");
    assert_eq!(&json_rows(&batch), rows, "{records:?}");
    // The schema survives the journal.
    let kept = serde_json::to_vec(&table).expect("a schema is serialisable");
    assert_eq!(serde_json::from_slice::<TableSchema>(&kept).expect("it was just written"), table);
}

fn json_rows(batch: &RecordBatch) -> Value {
    let schema = batch.schema();
    (0..batch.num_rows())
        .map(|row| {
            let members = (4..batch.num_columns())
                .filter(|at| batch.column(*at).is_valid(row))
                .map(|at| (schema.field(at).name().clone(), plain(batch.column(at), row)));
            Value::Object(members.collect())
        })
        .collect()
}

/// One value as JSON, with members by name.
fn plain(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Binary => format!("{:?}", array.as_binary::<i32>().value(row)).into(),
        DataType::Timestamp(..) => {
            format!("us:{}", array.as_primitive::<TimestampMicrosecondType>().value(row)).into()
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let members = fields.iter().zip(columns).map(|(f, c)| (f.name().clone(), plain(c, row)));
            Value::Object(members.filter(|(_, value)| !value.is_null()).collect())
        }
        DataType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            (0..elements.len()).map(|at| plain(&elements, at)).collect()
        }
        other => panic!("no column is {other}"),
    }
}

#[test]
fn the_first_values_make_the_columns() {
    check(
        &[
            r#"{"b":true,"i":1,"l":5000000000,"d":1.5,"s":"x","t":"1970-01-01T00:00:01Z","o":{"x":1},"a":[1,2]}"#,
        ],
        "b:5:boolean, i:6:int, l:7:long, d:8:double, s:9:string, t:10:timestamptz, o:11:{x:12:int}, a:13:[14:int]",
        &json!([{"b":true,"i":1,"l":5_000_000_000_i64,"d":1.5,"s":"x","t":"us:1000000","o":{"x":1},"a":[1,2]}]),
    );
}

#[test]
fn what_says_nothing_makes_no_column_until_it_says_something() {
    check(
        &[r#"{"n":null,"a":[],"o":{"x":[null]}}"#, r#"{"a":[[1]],"o":{"x":[2]}}"#, r#"{"a":[],"o":{}}"#],
        "a:5:[6:[7:int]], o:8:{x:9:[10:int]}",
        &json!([{}, {"a":[[1]],"o":{"x":[2]}}, {"a":[],"o":{}}]),
    );
}

#[test]
fn whole_numbers_widen_to_long_in_place_and_to_double_as_a_new_column() {
    check(
        &[r#"{"x":1,"l":[1]}"#, r#"{"x":9007199254740993,"l":[5000000000]}"#],
        "x:5:long, l:6:[7:long]",
        &json!([{"x":1,"l":[1]}, {"x":9_007_199_254_740_993_i64,"l":[5_000_000_000_i64]}]),
    );
    check(
        &[r#"{"x":1}"#, r#"{"x":2.5}"#, r#"{"x":9007199254740993}"#],
        "x:6:double, x_json:7:string",
        &json!([{"x":1.0}, {"x":2.5}, {"x_json":"9007199254740993"}]),
    );
    check(
        &[r#"{"x":9007199254740993}"#, r#"{"x":5}"#, r#"{"x":2.5}"#],
        "x:6:double, x_json:7:string",
        &json!([{"x_json":"9007199254740993"}, {"x":5.0}, {"x":2.5}]),
    );
    check(
        &[r#"{"x":[1]}"#, r#"{"x":[5000000000,null]}"#, r#"{"x":[2.5]}"#, r#"{"x":[9007199254740993]}"#],
        "x:7:[9:double], x_json:8:string",
        &json!([{"x":[1.0]}, {"x":[5e9,null]}, {"x":[2.5]}, {"x_json":"[9007199254740993]"}]),
    );
}

#[test]
fn what_does_not_fit_goes_to_a_text_column_of_its_own() {
    check(
        &[
            r#"{"x":1}"#,
            r#"{"x":"NA"}"#,
            r#"{"x":{"y":[1]}}"#,
            r#"{"x":18446744073709551615}"#,
            r#"{"x":[]}"#,
        ],
        "x:5:int, x_json:6:string",
        &json!([{"x":1}, {"x_json":"\"NA\""}, {"x_json":"{\"y\":[1]}"}, {"x_json":"18446744073709551615"}, {}]),
    );
    check(
        &[r#"{"x":[1,"a"]}"#, r#"{"x":[1,2]}"#, r#"{"x":["a"]}"#],
        "x:6:[7:int], x_json:5:string",
        &json!([{"x_json":"[1,\"a\"]"}, {"x":[1,2]}, {"x_json":"[\"a\"]"}]),
    );
    check(
        &[r#"{"x":["1970-01-01T00:00:00Z","b"]}"#, r#"{"x":[{"y":1}]}"#],
        "x:5:[6:string], x_json:7:string",
        &json!([{"x":["1970-01-01T00:00:00Z","b"]}, {"x_json":"[{\"y\":1}]"}]),
    );
    check(
        &[r#"{"x":[{"y":1},{"y":"a","z":1.5},null]}"#, r#"{"x":[{"y":2.5}]}"#],
        "x:5:[6:{y:10:double, y_json:8:string, z:9:double}]",
        &json!([{"x":[{"y":1.0},{"y_json":"\"a\"","z":1.5},null]}, {"x":[{"y":2.5}]}]),
    );
}

#[test]
fn names_are_free_whatever_the_keys_are() {
    check(
        &[r#"{"id":1,"ID":2,"_offset":3,"_partition":4,"a.b":5,"a_b":6,"":7}"#, r#"{"id":"x","id_json":8}"#],
        "id:5:int, id_json:12:string, ID_2:6:int, _offset_2:7:int, _partition_2:8:int, a_b:9:int, a_b_2:10:int, \
         empty:11:int, id_json_2:13:int",
        &json!([
            {"id":1,"ID_2":2,"_offset_2":3,"_partition_2":4,"a_b":5,"a_b_2":6,"empty":7},
            {"id_json":"\"x\"","id_json_2":8},
        ]),
    );
}

#[test]
fn the_last_of_duplicate_keys_wins() {
    check(
        &[
            r#"{"x":1,"o":{"y":1},"x":null,"o":{"y":2,"y":3}}"#,
            r#"{"x":1,"x":"a"}"#,
            r#"{"x":"a","x":[[7]],"x":2}"#,
        ],
        "o:5:{y:6:int}, x:7:string, x_json:8:string",
        &json!([{"o":{"y":3}}, {"x":"a"}, {"x_json":"2"}]),
    );
}

#[test]
fn bad_records_leave_nothing_behind() {
    let long = format!(r#"{{"{}":1}}"#, "k".repeat(300));
    let wide: Map<String, Value> = (0..3000).map(|n| (format!("c{n}"), json!(1))).collect();
    let wide = Value::Object(wide).to_string();
    let records = [
        r#"{"x":1,"l":[1,2]}"#,
        "",
        "  ",
        "[1]",
        "12",
        r#"{"x":2,"l":[1,2,"#,
        r#"{"x":3} x"#,
        "{\"x\":\"\u{1}\"}",
        r#"{"x":1e999}"#,
        &long,
        &wide,
        r#"{"x":4}"#,
    ];
    let (schema, batch, bad) = decode(TableSchema::new(Kind::Json), &records);
    assert_eq!(describe(&schema.columns()[4..]), "x:5:int, l:6:[7:int]");
    assert_eq!(json_rows(&batch), json!([{"x":1,"l":[1,2]}, {"x":4}]));
    let reasons: Vec<_> = bad.iter().map(|bad| bad.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "the value is empty",
            "the value is empty",
            "the value is not a JSON object",
            "the value is not a JSON object",
            "EOF while parsing a value at line 1 column 16",
            "trailing characters at line 1 column 9",
            "control character (\\u0000-\\u001F) found while parsing a string at line 1 column 7",
            "number out of range at line 1 column 10",
            "a key is longer than 256 bytes",
            TOO_MANY_COLUMNS,
        ]
    );
}

/// A producer that takes microseconds for milliseconds would keep readers from the whole table.
#[test]
fn a_record_of_a_year_that_readers_do_not_know_is_bad() {
    for kind in [Kind::Json, Kind::Raw] {
        let mut decoder = Decoder::new(TableSchema::new(kind));
        for timestamp in [1_700_000_000_000_000, -62_135_596_800_001, i64::MAX, i64::MIN] {
            let far = Row { timestamp, ..row(0, Some(b"{}")) };
            let Err(Refused::Bad(bad)) = decoder.push(&far) else { panic!("{timestamp} is a row") };
            assert!(bad.reason.contains("outside the years 1 to 9999"), "{bad}");
        }
        assert_eq!(decoder.finish().1.num_rows(), 0);
    }
}

/// The parser's own limit is 128 levels.
#[test]
fn values_of_any_depth_are_text() {
    for levels in [20, limits::TREE_DEPTH_MAX, 126, 127, 128, 300, 20_000] {
        let lists = format!("{}1, \"[ \\\"\"{}", "[".repeat(levels), "]".repeat(levels));
        let objects = format!("{}{{\"a\" : 1}}{}", "{\"o\":".repeat(levels), "}".repeat(levels));
        let record = format!(r#"{{"x":{lists},"n":1,"o":{objects}}}"#);
        // First by way of a tree, then straight into the columns.
        let (schema, batch, bad) = decode(TableSchema::new(Kind::Json), &[&record, &record]);
        assert_eq!(bad, [], "{levels}");
        let rows = json_rows(&batch);
        assert_eq!((&rows[0], &rows[0]["n"]), (&rows[1], &json!(1)));
        assert_eq!(rows[0]["x_json"].as_str(), Some(crate::text::compact(&lists).as_str()), "{levels}");
        let mut at = &rows[0]["o"];
        while at["o"].is_object() {
            at = &at["o"];
        }
        let text = at["o_json"].as_str().expect("the last level of structs has a text");
        let whole = crate::text::compact(&objects);
        assert!(
            whole.contains(text) && text.ends_with("}}") && text.contains("{\"a\":1}"),
            "{levels}: {text}"
        );
        let (again, ..) = decode(schema.clone(), &[&record]);
        assert_eq!(again, schema);
    }
    // Broken text is broken at any depth.
    let broken = format!("{{\"x\":{}", "[".repeat(300));
    assert_eq!(decode(TableSchema::new(Kind::Json), &[&broken]).2.len(), 1);
}

#[test]
fn a_byte_order_mark_is_skipped() {
    check(
        &["\u{feff}{\"x\":1}", "{\"x\":\"\u{feff}\"}"],
        "x:5:int, x_json:6:string",
        &json!([{"x":1}, {"x_json":"\"\u{feff}\""}]),
    );
    let (_, _, bad) = decode(TableSchema::new(Kind::Json), &["\u{feff}\u{feff}{}", "\u{feff}"]);
    assert_eq!(bad.len(), 2);
}

#[test]
fn minus_zero_is_a_whole_number_and_with_a_fraction_it_is_not() {
    check(&[r#"{"x":-0}"#, r#"{"x":1}"#, r#"{"x": -0 }"#], "x:5:int", &json!([{"x":0},{"x":1},{"x":0}]));
    check(&[r#"{"x":-0.0}"#, r#"{"x":-0}"#], "x:5:double", &json!([{"x":-0.0},{"x":0.0}]));
    let texts = json!([{"x":"a"}, {"x_json":"0"}, {"x_json":"-0.0"}, {"x_json":"[0,-0.0]"}]);
    let records = [r#"{"x":"a"}"#, r#"{"x":-0}"#, r#"{"x":-0.0}"#, r#"{"x":[-0,-0.0]}"#];
    check(&records, "x:5:string, x_json:6:string", &texts);
}

#[test]
fn letters_that_are_one_to_an_engine_get_a_number() {
    check(
        &[r#"{"id":1,"sinir":1,"sınır":2,"gas":3,"gaſ":4}"#],
        "id:5:int, sinir:6:int, sınır_2:7:int, gas:8:int, gaſ_2:9:int",
        &json!([{"id":1,"sinir":1,"sınır_2":2,"gas":3,"gaſ_2":4}]),
    );
}

#[test]
fn a_record_of_too_many_keys_is_refused_at_the_first_that_is_too_many() {
    // Each of these took hours when keys were counted only at the end, and each key was compared with all others.
    let keys: String = (0..200_000).map(|n| format!("\"key{n}\":1,")).collect();
    let elements: String = (0..200_000).map(|n| format!("{{\"key{n}\":1}},")).collect();
    let top = format!("{{{keys}\"x\":1}}");
    let inner = format!("{{\"o\":{{\"p\":{top}}}}}");
    let list = format!("{{\"l\":[{top},{top}]}}");
    let spread = format!("{{\"l\":[{elements}null]}}");
    let records: Vec<&str> = [&top, &inner, &list, &spread].map(String::as_str).into();
    let (schema, batch, bad) = decode(TableSchema::new(Kind::Json), &records);
    assert_eq!((schema, batch.num_rows()), (TableSchema::new(Kind::Json), 0));
    let reason = TOO_MANY_COLUMNS;
    assert_eq!(bad.iter().map(|bad| bad.reason.as_str()).collect::<Vec<_>>(), [reason; 4]);
}

#[test]
fn the_column_limit_is_exact() {
    let with = |members: usize| {
        let members: Map<String, Value> = (0..members).map(|n| (format!("c{n}"), json!(1))).collect();
        // Two columns for the list. The members of a mixed list take no column, because the list becomes text.
        json!({"o": [members], "mixed": [members, "text"]}).to_string()
    };
    let (schema, batch, bad) = decode(TableSchema::new(Kind::Json), &[&with(1997)]);
    assert_eq!((batch.num_rows(), bad), (1, vec![]));
    let (_, batch, bad) = decode(schema, &[r#"{"o":[{"c1":7}]}"#, r#"{"o":[{"c1":"x"}]}"#, r#"{"y":1}"#]);
    assert_eq!((batch.num_rows(), bad.len()), (1, 2));
    let (_, batch, bad) = decode(TableSchema::new(Kind::Json), &[&with(1998)]);
    assert_eq!((batch.num_rows(), bad.len()), (0, 1));
}

#[test]
fn lists_of_wide_structs_inside_lists_are_not_copied_for_every_element() {
    let wide: Map<String, Value> = (0..1900).map(|n| (format!("c{n}"), json!(1))).collect();
    let wide = json!({"a": [{"b": [wide]}]}).to_string();
    // Inner lists that fit the column, and inner lists that do not.
    let many = format!("{{\"a\":[{}{{\"c\":1}}]}}", "{\"b\":[{\"c0\":1}]},{\"b\":[\"x\"]},".repeat(4_000));
    let (_, batch, bad) = decode(TableSchema::new(Kind::Json), &[&wide, &many]);
    assert_eq!((batch.num_rows(), bad), (2, vec![]));
}

/// A record whose list has one struct of `members` members.
fn wide(members: usize) -> String {
    let members: Map<String, Value> = (0..members).map(|n| (format!("c{n}"), json!(1))).collect();
    json!({"a": [members]}).to_string()
}

/// A record whose list has `elements` empty structs and then `last`.
fn long(elements: usize, last: &str) -> String {
    format!("{{\"a\":[{}{last}]}}", "{},".repeat(elements))
}

/// The outcomes of records that are pushed one after the other.
fn pushed(records: &[&str]) -> (Vec<Result<(), Refused>>, RecordBatch) {
    let mut decoder = Decoder::new(TableSchema::new(Kind::Json));
    let results = records.iter().map(|record| decoder.push(&row(0, Some(record.as_bytes())))).collect();
    (results, decoder.finish().1)
}

#[test]
fn short_elements_of_wide_lists_are_counted_before_memory_is_taken() {
    let elements = limits::CELLS_MAX / 1900;
    let wide = wide(1900);
    let fits = long(elements / 2, "{\"c7\":2}");
    let (ends, begins) = (long(elements, "{\"c7\":2}"), long(elements, "{}"));
    let (results, batch) = pushed(&[&wide, &fits, &wide, &ends, &begins, &wide]);
    let full = || Err(Refused::Full);
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), full(), full(), Ok(())]);
    assert_eq!(batch.column(4).as_list::<i32>().value(1).len(), elements / 2 + 1);
    // No batch has room for the record, neither on the fast way nor by way of a tree.
    for record in [&ends, &long(elements, "{\"other\":2}")] {
        let (schema, ..) = decode(TableSchema::new(Kind::Json), &[&wide]);
        let (after, batch, bad) = decode(schema.clone(), &[record]);
        assert_eq!((after, batch.num_rows()), (schema, 0));
        assert_eq!(
            bad[0].reason,
            "its lists take more than 16777216 cells: elements times the columns of an element"
        );
    }
}

#[test]
fn what_is_held_is_counted_again_when_the_schema_grows() {
    // First the structs of a list grow from one member to 1,900, then the rows themselves.
    let narrow = long(limits::CELLS_MAX / 1900, "{\"c0\":2}");
    let (results, _) = pushed(&[&narrow, &wide(1900)]);
    assert_eq!(results, [Ok(()), Err(Refused::Full)]);

    let top: Map<String, Value> = (0..1900).map(|n| (format!("c{n}"), json!(1))).collect();
    let top = Value::Object(top).to_string();
    let rows = limits::CELLS_MAX / 1900;
    let mut records = vec!["{}"; rows];
    records.push(&top);
    let (results, batch) = pushed(&records);
    assert_eq!((results.last(), batch.num_columns()), (Some(&Err(Refused::Full)), 4));
    let (results, batch) = pushed(&[[top.as_str()].as_slice(), &vec!["{}"; rows]].concat());
    assert_eq!((results.last(), batch.num_columns()), (Some(&Err(Refused::Full)), 1904));
}

#[test]
fn system_columns_hold_what_the_log_holds() {
    let mut decoder = Decoder::new(TableSchema::new(Kind::Json));
    let keyed =
        |offset, timestamp, key| Row { partition: 2, offset, timestamp, key, value: None, headers: &[] };
    for row in [
        keyed(7, 1, Some(b"k".as_slice())),
        keyed(9, -1, Some(b"\xff".as_slice())),
        keyed(10, -86_400_000, None),
        keyed(11, 0, Some(b"".as_slice())),
    ] {
        decoder.push(&row).expect("a tombstone is a row");
    }
    let (schema, batch) = decoder.finish();
    assert_eq!(
        describe(&schema.columns()),
        "_partition_id:1:int, _offset:2:long, _timestamp:3:timestamptz, _key:4:string, _key_bytes:5:binary"
    );
    let rows: Vec<Vec<Value>> =
        (0..4).map(|row| batch.columns().iter().map(|column| plain(column, row)).collect()).collect();
    assert_eq!(
        json!(rows),
        json!([
            [2, 7, "us:1000", "k", null],
            [2, 9, null, null, "[255]"],
            [2, 10, "us:-86400000000", null, null],
            [2, 11, "us:0", "", null],
        ])
    );
}

#[test]
fn raw_tables_keep_bytes() {
    let mut decoder = Decoder::new(TableSchema::new(Kind::Raw));
    let headers = [("h".into(), Some("v".into())), ("h".into(), None)];
    let row =
        Row { partition: 0, offset: 0, timestamp: 0, key: None, value: Some(b"{\xff"), headers: &headers };
    decoder.push(&row).expect("raw records are never bad");
    decoder
        .push(&Row { key: Some(b"k"), value: None, headers: &[], ..row })
        .expect("raw records are never bad");
    let (schema, batch) = decoder.finish();
    assert_eq!(
        describe(&schema.columns()[3..]),
        "key:4:binary, value:5:binary, headers:6:[7:{key:8:string, value:9:binary}]"
    );
    let rows: Vec<Vec<Value>> =
        (0..2).map(|row| batch.columns()[3..].iter().map(|column| plain(column, row)).collect()).collect();
    assert_eq!(
        json!(rows),
        json!([[null, "[123, 255]", [{"key":"h","value":"[118]"}, {"key":"h"}]], ["[107]", null, []]])
    );
    assert_eq!(schema.adapt(&batch).expect("it has the schema already"), batch);
}

// Properties over generated records.

fn keys() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "A", "b", "a_json", "_offset", "x.y", "x_y", "", "element"])
        .prop_map(String::from)
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..3i64).prop_map(Value::from),
        prop::sample::select(vec![i64::MIN, i64::MAX, 1 << 40, (1 << 53) + 1, (1 << 53)])
            .prop_map(Value::from),
        prop::sample::select(vec![u64::MAX, 1 << 63]).prop_map(Value::from),
        prop::sample::select(vec![0.5, -1e300, 4.0]).prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "NA",
            "1970-01-01T00:00:00Z",
            "2013-01-01T05:00:00.25+01:00",
            "\"\\\u{1}é"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::vec((keys(), inner), 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn records() -> impl Strategy<Value = Vec<Value>> {
    let record = prop::collection::vec((keys(), values()), 0..4);
    prop::collection::vec(record.prop_map(|members| Value::Object(members.into_iter().collect())), 1..12)
}

fn is_void(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(elements) => elements.iter().all(is_void),
        Value::Object(members) => members.values().all(is_void),
        _ => false,
    }
}

const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// The meaning of a value, however it is written: void is null, equal instants are equal, 4.0 is 4.
fn meaning(value: &Value) -> Value {
    match value {
        value if is_void(value) => Value::Null,
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and in range")]
        Value::Number(n) => match n.as_f64() {
            Some(d) if n.is_f64() && d.fract() == 0.0 && (-TWO_63..TWO_63).contains(&d) => (d as i64).into(),
            Some(d) if n.is_f64() && d.fract() == 0.0 && (TWO_63..2.0 * TWO_63).contains(&d) => {
                (d as u64).into()
            }
            _ => value.clone(),
        },
        Value::String(text) => {
            timestamp::parse(text).map_or_else(|| value.clone(), |us| format!("us:{us}").into())
        }
        Value::Array(elements) => elements.iter().map(meaning).collect(),
        Value::Object(members) => Value::Object(
            members.iter().map(|(k, v)| (k.clone(), meaning(v))).filter(|(_, v)| !v.is_null()).collect(),
        ),
        _ => value.clone(),
    }
}

/// The record that a row stands for, with columns found by id.
fn record(slots: &[ColumnSlot], arrays: &BTreeMap<i32, ArrayRef>, row: usize) -> Value {
    let mut members = Map::new();
    for slot in slots {
        let typed = slot.typed.as_ref().map(|typed| value(&typed.of, &arrays[&typed.id], row));
        let typed = typed.unwrap_or(Value::Null);
        let text = slot
            .text
            .as_ref()
            .map(|text| plain(&arrays[&text.id], row))
            .and_then(|v| v.as_str().map(String::from));
        let text = text.map(|text| serde_json::from_str(&text).expect("text columns hold JSON"));
        assert!(typed.is_null() || text.is_none(), "a value is in one column: {typed} {text:?}");
        members.insert(slot.key.clone(), text.unwrap_or(typed));
    }
    Value::Object(members)
}

fn value(of: &Type, array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match of {
        Type::Struct(slots) => {
            record(slots, &by_id(array.as_struct().fields(), array.as_struct().columns()), row)
        }
        Type::List { of, .. } => {
            let elements = array.as_list::<i32>().value(row);
            (0..elements.len()).map(|at| value(of, &elements, at)).collect()
        }
        _ => plain(array, row),
    }
}

fn by_id(fields: &arrow::datatypes::Fields, arrays: &[ArrayRef]) -> BTreeMap<i32, ArrayRef> {
    let id =
        |field: &arrow::datatypes::Field| field.metadata()[crate::table::FIELD_ID].parse().expect("a number");
    fields.iter().map(|field| id(field)).zip(arrays.iter().cloned()).collect()
}

fn meanings(schema: &TableSchema, batch: &RecordBatch) -> Vec<Value> {
    let arrays = by_id(batch.schema().fields(), batch.columns());
    (0..batch.num_rows()).map(|row| meaning(&record(&schema.slots, &arrays, row))).collect()
}

/// Ids are unique, names are unique in their struct, and both keep what an earlier schema promised.
fn assert_sound(columns: &[Column], ids: &mut BTreeMap<i32, String>) {
    let mut names = BTreeSet::new();
    for column in columns {
        assert!(names.insert(column.name.to_lowercase()), "{} is taken", column.name);
        assert_sound_type(column.id, &column.of, ids);
    }
}

fn assert_sound_type(id: i32, of: &ColumnType, ids: &mut BTreeMap<i32, String>) {
    let name = match of {
        ColumnType::Struct(_) => "struct".to_owned(),
        ColumnType::List { .. } => "list".to_owned(),
        other => format!("{other:?}"),
    };
    assert!(ids.insert(id, name).is_none(), "id {id} is used twice");
    match of {
        ColumnType::Struct(columns) => assert_sound(columns, ids),
        ColumnType::List { id, of, .. } => assert_sound_type(*id, of, ids),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_value_is_lost_in_any_order(first in records(), second in records()) {
        let text = |records: &[Value]| records.iter().map(Value::to_string).collect::<Vec<_>>();
        let (first_text, second_text) = (text(&first), text(&second));
        let of = |texts: &[String], schema| {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let (schema, batch, bad) = decode(schema, &texts);
            assert_eq!(bad, []);
            (schema, batch)
        };
        let wanted = |records: &[Value]| {
            let meaning = |record| Some(meaning(record)).filter(|m| !m.is_null()).unwrap_or(json!({}));
            records.iter().map(meaning).collect::<Vec<_>>()
        };
        let got = |schema: &TableSchema, batch: &RecordBatch| {
            meanings(schema, batch).into_iter().map(|m| if m.is_null() { json!({}) } else { m }).collect::<Vec<_>>()
        };

        let (narrow, old) = of(&first_text, TableSchema::new(Kind::Json));
        prop_assert_eq!(got(&narrow, &old), wanted(&first));
        let (wide, new) = of(&second_text, narrow.clone());
        prop_assert_eq!(got(&wide, &new), wanted(&second));
        // A row of the narrow schema means the same under the wide schema.
        let adapted = wide.adapt(&old).expect("the schema grew from that of the batch");
        prop_assert_eq!(adapted.schema(), wide.arrow());
        prop_assert_eq!(got(&wide, &adapted), wanted(&first));
        // Decoding again with the wide schema changes nothing: widening is a closure.
        let (again, _) = of(&[first_text, second_text].concat(), wide.clone());
        prop_assert_eq!(&again, &wide);

        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        assert_sound(&narrow.columns(), &mut before);
        assert_sound(&wide.columns(), &mut after);
        prop_assert!(after.keys().all(|id| *id <= wide.last_column_id()));
        let replaced = wide.replaced();
        for (id, old) in before {
            match after.get(&id) {
                Some(new) => prop_assert!(old == *new || (old == "Int" && new == "Long"), "{} to {}", old, new),
                None => prop_assert!(replaced.contains_key(&id) || old == "Int" || old == "Long" || old == "list"),
            }
        }
    }

    #[test]
    fn a_double_is_the_nearest_to_its_text(
        double in any::<f64>(),
        digits in "-?[1-9][0-9]{0,24}\\.[0-9]{1,30}(e-?[0-9]{1,2})?",
    ) {
        let finite = if double.is_finite() { double } else { 449.491_064_788_738_13 };
        for text in [format!("{finite:e}"), digits] {
            // The schema grows for the first record, which goes by way of a tree. The second goes straight into its
            // column.
            let record = format!("{{\"x\":{text}}}");
            let (_, batch, bad) = decode(TableSchema::new(Kind::Json), &[&record, &record]);
            prop_assert_eq!(bad, []);
            let wanted: f64 = text.parse().expect("it is a number");
            let column = batch.column(4).as_primitive::<Float64Type>();
            for row in 0..2 {
                prop_assert_eq!(column.value(row).to_bits(), wanted.to_bits(), "{}", text);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)
    ) {
        let mut decoder = Decoder::new(TableSchema::new(Kind::Json));
        for value in &values {
            let _ = decoder.push(&row(0, Some(value)));
        }
        let rows = decoder.rows();
        prop_assert_eq!(decoder.finish().1.num_rows(), rows);
    }
}
