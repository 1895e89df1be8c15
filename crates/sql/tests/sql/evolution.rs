//! A schema that grows. The lake's files are older than the tail, and some files are older than others.

use crate::world::World;

/// Each step adds records. Checks that statements give the same answers before and after the lake has these records.
async fn check(steps: &[&[&str]], statements: &[&str]) {
    let world = World::new().await;
    let topic = world.table("t", 2).await;
    for (number, step) in steps.iter().enumerate() {
        world.append(&topic, u32::try_from(number % 2).unwrap(), step).await;
        let mut before = Vec::new();
        for text in statements {
            before.push(world.sql.query(text).await.map(|_| ()).err());
        }
        // The first steps lack columns that some statements name. Only a statement that worked before the lake has the
        // records must work after that.
        let mut answers = Vec::new();
        for (text, error) in statements.iter().zip(&before) {
            answers.push(if error.is_none() { Some(world.text(text).await) } else { None });
        }
        world.settle().await;
        for (text, answer) in statements.iter().zip(answers) {
            let Some(answer) = answer else { continue };
            assert_eq!(world.text(text).await, answer, "step {number}: {text}");
        }
    }
    for text in statements {
        world.rows(text).await.unwrap_or_else(|error| panic!("at last, {text} must be possible: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_come_and_widen() {
    check(
        &[
            &[r#"{"a":1}"#, r#"{"a":2}"#],
            &[r#"{"a":10000000000,"b":"x"}"#],
            &[r#"{"a":3,"b":"y","c":true}"#],
            &[r#"{"a":"text","b":7}"#],
        ],
        &[
            "select * from t order by _partition_id, _offset",
            "select a, b, c from t order by a nulls last, b, c",
            "select sum(a), count(b), count(*) from t",
            "select _offset from t where a > 1 and a < 5 order by 1",
            "select _offset from t where b is null order by 1",
            "select a, a_json, b_json from t order by a nulls last, 2",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_numbers_become_doubles() {
    check(
        &[
            &[r#"{"a":1}"#, r#"{"a":9007199254740993}"#],
            &[r#"{"a":1.5}"#],
            &[r#"{"a":2}"#, r#"{"a":9007199254740993}"#],
        ],
        &[
            "select _partition_id, _offset, a from t order by 1, 2",
            "select count(a), count(*) from t",
            "select _offset from t where a = 1 order by 1",
            "select a_json from t where a is null order by 1",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_values_grow() {
    check(
        &[
            &[r#"{"s":{"x":1},"l":[{"y":1},null]}"#, r#"{"s":null,"l":[]}"#],
            &[r#"{"s":{"x":10000000000,"z":{"q":1}},"l":[{"y":2,"n":"new"}]}"#],
            &[r#"{"s":{"x":1.5,"z":{"q":2,"r":[1]}},"l":[{"y":2.5}],"m":[1]}"#],
            &[r#"{"s":{"z":{"q":"odd"}},"m":[1.5]}"#],
        ],
        &[
            "select * from t order by _partition_id, _offset",
            "select s.x, l[1]['y'] from t order by _partition_id, _offset",
            "select s.z.q, l[1]['n'] from t order by _partition_id, _offset",
            "select count(*) from t where s.x >= 1",
            "select s.z.r, m from t order by _partition_id, _offset",
        ],
    )
    .await;
}
