//! The engine in a simulation: one thread, a simulated clock, and the same run for the same seed.

use crate::world::World;

/// Runs one simulation. Returns the answers and the number of polls of its tasks.
async fn run(seed: u64) -> (Vec<String>, u64) {
    let world = World::simulated(seed).await;
    let topic = world.table("t", 2).await;
    let mut answers = Vec::new();
    for round in 0..3 {
        let values: Vec<String> = (0..50).map(|n| format!(r#"{{"n":{n},"round":{round}}}"#)).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        world.append(&topic, round % 2, &values).await;
        for text in [
            "select round, count(*), sum(n) from t group by round order by round",
            "select a.n, count(*) from t a join t b on a.n = b.n + 1 group by a.n order by 2 desc, 1 limit 3",
            "select n from t where nonsense",
            "select now(), current_date()",
        ] {
            let answer = world.rows(text).await;
            answers.push(format!("{answer:?}"));
        }
        world.settle().await;
    }
    let polls = world.env.polls();
    world.env.abort_all();
    (answers, polls)
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let first = run(7).await;
    assert_eq!(first, run(7).await);
    let (answers, _) = first;
    assert!(answers[0].contains("1225"), "{}", answers[0]);
    assert!(answers[2].contains("nonsense"), "{}", answers[2]);
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_a_statement_is_that_of_the_simulation() {
    let world = World::simulated(1).await;
    world
        .check(
            "select current_date() as day, now() = now() as same, now() < timestamp '2026-01-01T00:01:00Z' as begun",
            "
            day     | same | begun
        ------------+------+-------
         2026-01-01 | true | true",
        )
        .await;
}
