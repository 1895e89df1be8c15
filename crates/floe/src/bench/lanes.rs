//! Which connection writes or reads which partitions. A connection goes to one broker, so all of its partitions have
//! the same leader.

use anyhow::{Result, ensure};

use crate::term::things;

/// The work of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lane {
    /// Which of the leaders.
    pub(super) leader: usize,
    pub(super) partitions: Vec<i32>,
}

/// Whether several connections may work on one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Writers may.
    Allowed,
    /// Readers may not: each record is read once.
    Refused,
}

/// Deals the partitions of each leader out to connections.
///
/// # Errors
/// There are fewer connections than leaders, or more than partitions that may not be shared.
pub(super) fn deal(leaders: &[Vec<i32>], connections: usize, sharing: Sharing) -> Result<Vec<Lane>> {
    let partitions: usize = leaders.iter().map(Vec::len).sum();
    assert!(leaders.iter().all(|of_leader| !of_leader.is_empty()), "a leader leads something");
    let least = leaders.len();
    ensure!(
        connections >= least,
        "{least} brokers lead the topic's partitions: take at least {least} connections, not {connections}"
    );
    ensure!(
        sharing == Sharing::Allowed || connections <= partitions,
        "the topic has {}, each read by one connection: take at most {partitions}, not {connections}",
        things(partitions, "partition")
    );
    let mut lanes = Vec::with_capacity(connections);
    for (leader, (partitions, connections)) in leaders.iter().zip(shares(leaders, connections)).enumerate() {
        for place in 0..connections {
            let mine: Vec<i32> = match connections <= partitions.len() {
                true => partitions.iter().copied().skip(place).step_by(connections).collect(),
                false => vec![partitions[place % partitions.len()]],
            };
            lanes.push(Lane { leader, partitions: mine });
        }
    }
    Ok(lanes)
}

/// Connections of each leader: one each, and the others one by one to the leader with most partitions a connection.
fn shares(leaders: &[Vec<i32>], connections: usize) -> Vec<usize> {
    let mut shares = vec![1; leaders.len()];
    for _ in leaders.len()..connections {
        // The fractions are compared without dividing. The first of equals gets the connection.
        let busiest = (0..leaders.len()).rev().max_by(|&left, &right| {
            (leaders[left].len() * shares[right]).cmp(&(leaders[right].len() * shares[left]))
        });
        shares[busiest.expect("a topic has a leader")] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(leaders: &[Vec<i32>], connections: usize, sharing: Sharing) -> Vec<(usize, Vec<i32>)> {
        let lanes = deal(leaders, connections, sharing).expect("it can be dealt");
        lanes.into_iter().map(|lane| (lane.leader, lane.partitions)).collect()
    }

    #[test]
    fn one_broker_deals_its_partitions_out() {
        let one = [vec![0, 1, 2, 3, 4]];
        assert_eq!(dealt(&one, 1, Sharing::Refused), [(0, vec![0, 1, 2, 3, 4])]);
        assert_eq!(dealt(&one, 2, Sharing::Refused), [(0, vec![0, 2, 4]), (0, vec![1, 3])]);
        assert_eq!(dealt(&[vec![0, 1]], 3, Sharing::Allowed), [(0, vec![0]), (0, vec![1]), (0, vec![0])]);
    }

    #[test]
    fn each_connection_stays_with_one_leader() {
        let three = [vec![0, 3, 4, 5], vec![1], vec![2]];
        assert_eq!(
            dealt(&three, 4, Sharing::Refused),
            [(0, vec![0, 4]), (0, vec![3, 5]), (1, vec![1]), (2, vec![2])]
        );
    }

    #[test]
    fn every_partition_is_dealt_once_to_readers() {
        let leaders = [vec![0, 3, 6, 9, 12], vec![1, 4, 7], vec![2]];
        for connections in 3..=9 {
            let mut seen: Vec<i32> = dealt(&leaders, connections, Sharing::Refused)
                .into_iter()
                .flat_map(|(leader, partitions)| {
                    assert!(!partitions.is_empty());
                    assert!(partitions.iter().all(|partition| leaders[leader].contains(partition)));
                    partitions
                })
                .collect();
            seen.sort_unstable();
            let mut all = leaders.concat();
            all.sort_unstable();
            assert_eq!(seen, all, "{connections} connections");
        }
    }

    #[test]
    fn what_cannot_be_dealt_says_what_to_do() {
        let two = [vec![0], vec![1]];
        let few = deal(&two, 1, Sharing::Allowed).expect_err("two brokers");
        assert!(few.to_string().ends_with("take at least 2 connections, not 1"), "{few}");
        let many = deal(&two, 3, Sharing::Refused).expect_err("two partitions");
        assert!(many.to_string().ends_with("take at most 2, not 3"), "{many}");
    }
}
