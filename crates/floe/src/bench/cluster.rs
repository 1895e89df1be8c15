//! The brokers: the topic, who leads its partitions, and connections to them.

use std::collections::BTreeMap;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use floe_client::{Client, LATEST};
use floe_env::Env;
use floe_wire::ErrorCode;
use floe_wire::admin::{CreatableTopic, CreatableTopicConfig};
use floe_wire::metadata::{MetadataResponse, MetadataResponseTopic};
use floe_wire::offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::bench::lanes::{Lane, Sharing, deal};
use crate::bench::limits::{PARTITIONS_MAX, READY_PAUSE, READY_TIME_MAX};
use crate::bench::plan::TopicPlan;
use crate::bootstrap;
use crate::term::things;

/// The name that the broker sees.
pub(super) const CLIENT_ID: &str = "floe-bench";
/// The partitions of a new topic if nobody says how many.
const PARTITIONS_DEFAULT: i32 = 1;
/// The replica id of clients.
const NO_REPLICA: i32 = -1;

/// A broker that leads partitions of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leader {
    node: i32,
    host: String,
    port: u16,
    partitions: Vec<i32>,
}

/// A topic whose partitions all have leaders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cluster {
    topic: String,
    leaders: Vec<Leader>,
}

/// What the metadata say of a topic.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Missing,
    /// Some partitions have no leader yet.
    Waiting(usize),
    Led(Vec<Leader>),
}

/// Tries again while a broker says that it is not ready: just after its own start, or after that of a topic.
pub(super) async fn once_ready<T>(env: &Env, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let until = env.monotonic() + READY_TIME_MAX;
    let passes = |error: &Error| error.downcast_ref().is_some_and(|code: &ErrorCode| code.retriable());
    loop {
        match attempt().await {
            Err(error) if passes(&error) && env.monotonic() < until => sleep(READY_PAUSE).await,
            outcome => return outcome,
        }
    }
}

/// Who leads the partitions of the topic.
fn leaders(metadata: MetadataResponse, topic: MetadataResponseTopic) -> Result<Found> {
    if topic.error_code == ErrorCode::UnknownTopicOrPartition.number() {
        return Ok(Found::Missing);
    }
    match ErrorCode::check(topic.error_code) {
        Err(ErrorCode::LeaderNotAvailable) => return Ok(Found::Waiting(topic.partitions.len())),
        other => other.with_context(|| format!("cannot describe {}", topic.name.unwrap_or_default()))?,
    }
    ensure!(
        topic.partitions.len() as u64 <= PARTITIONS_MAX,
        "the topic has {} partitions, at most {PARTITIONS_MAX} are taken",
        topic.partitions.len()
    );
    let mut brokers = BTreeMap::new();
    for broker in metadata.brokers {
        let port = u16::try_from(broker.port).with_context(|| format!("port {} is none", broker.port))?;
        let (node, partitions) = (broker.node_id, Vec::new());
        brokers.insert(node, Leader { node, host: broker.host, port, partitions });
    }
    let mut waiting = 0;
    for partition in &topic.partitions {
        match brokers.get_mut(&partition.leader_id) {
            Some(leader) => leader.partitions.push(partition.partition_index),
            None => waiting += 1,
        }
    }
    if waiting > 0 || topic.partitions.is_empty() {
        return Ok(Found::Waiting(waiting));
    }
    let mut leaders: Vec<Leader> = brokers.into_values().collect();
    leaders.retain(|leader| !leader.partitions.is_empty());
    leaders.iter_mut().for_each(|leader| leader.partitions.sort_unstable());
    Ok(Found::Led(leaders))
}

async fn look(client: &mut Client<TcpStream>, name: &str) -> Result<Found> {
    let mut metadata = client.metadata(&[name]).await.context("cannot ask for the topic")?;
    let topic = metadata.topics.pop().context("the broker names no topic")?;
    leaders(metadata, topic)
}

async fn create(client: &mut Client<TcpStream>, plan: &TopicPlan) -> Result<()> {
    let config = |(name, value): &(String, String)| CreatableTopicConfig {
        name: name.clone(),
        value: Some(value.clone()),
    };
    let topic = CreatableTopic {
        name: plan.name.clone(),
        num_partitions: plan.partitions.unwrap_or(PARTITIONS_DEFAULT),
        replication_factor: plan.replication_factor,
        configs: plan.configs.iter().map(config).collect(),
        ..Default::default()
    };
    let answer = client.create_topics(vec![topic]).await.context("cannot create the topic")?;
    let created = answer.topics.first().context("the broker does not say whether it created the topic")?;
    match ErrorCode::check(created.error_code) {
        // Somebody else was faster.
        Ok(()) | Err(ErrorCode::TopicAlreadyExists) => Ok(()),
        Err(code) => {
            let said = created.error_message.clone().unwrap_or_default();
            Err(anyhow!("{code}: {said}").context(format!("cannot create the topic {}", plan.name)))
        }
    }
}

impl Cluster {
    /// The topic of a plan; it must be there.
    pub(super) async fn find(env: &Env, client: &mut Client<TcpStream>, plan: &TopicPlan) -> Result<Cluster> {
        if look(client, &plan.name).await? == Found::Missing {
            let name = &plan.name;
            bail!("there is no topic {name}: `floe bench produce --topic {name}` makes and fills it");
        }
        Cluster::wait(env, client, plan).await
    }

    /// The topic of a plan, which is created if it is missing.
    pub(super) async fn find_or_create(
        env: &Env,
        client: &mut Client<TcpStream>,
        plan: &TopicPlan,
    ) -> Result<Cluster> {
        if look(client, &plan.name).await? == Found::Missing {
            create(client, plan).await?;
        }
        Cluster::wait(env, client, plan).await
    }

    /// Waits until each partition has a leader that knows it.
    async fn wait(env: &Env, client: &mut Client<TcpStream>, plan: &TopicPlan) -> Result<Cluster> {
        once_ready(env, async || {
            let Found::Led(leaders) = look(client, &plan.name).await? else {
                let why = format!("partitions of {} have no leader: look at the brokers", plan.name);
                return Err(Error::from(ErrorCode::LeaderNotAvailable).context(why));
            };
            let cluster = Cluster { topic: plan.name.clone(), leaders };
            cluster.check_partitions(plan)?;
            cluster.offsets(LATEST).await?;
            Ok(cluster)
        })
        .await
    }

    fn check_partitions(&self, plan: &TopicPlan) -> Result<()> {
        let partitions = self.partitions();
        let wanted = plan.partitions.unwrap_or(partitions);
        ensure!(
            wanted == partitions,
            "the topic {} has {}, not {wanted}: choose another --topic, or leave --partitions out",
            plan.name,
            things(partitions, "partition")
        );
        Ok(())
    }

    /// The topic's name.
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// How many partitions the topic has.
    pub(super) fn partitions(&self) -> i32 {
        let partitions: usize = self.leaders.iter().map(|leader| leader.partitions.len()).sum();
        i32::try_from(partitions).expect("the number was compared with the limit")
    }

    /// How many brokers lead partitions.
    pub(super) fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// Which connection works on which partitions.
    pub(super) fn lanes(&self, connections: usize, sharing: Sharing) -> Result<Vec<Lane>> {
        let partitions: Vec<Vec<i32>> = self.leaders.iter().map(|leader| leader.partitions.clone()).collect();
        deal(&partitions, connections, sharing)
    }

    /// Connects to the leader of a lane.
    pub(super) async fn connect(&self, lane: &Lane) -> Result<Client<TcpStream>> {
        self.connect_to(&self.leaders[lane.leader]).await
    }

    async fn connect_to(&self, leader: &Leader) -> Result<Client<TcpStream>> {
        let Leader { node, host, port, .. } = leader;
        bootstrap::connect((host.as_str(), *port), CLIENT_ID).await.with_context(|| {
            format!(
                "cannot reach broker {node} at {host}:{port}, the address that the cluster gives to clients \
                 (advertised, advertised.listeners)"
            )
        })
    }

    /// The first or the next offset of each partition, as `timestamp` says.
    pub(super) async fn offsets(&self, timestamp: i64) -> Result<BTreeMap<i32, i64>> {
        let mut offsets = BTreeMap::new();
        for leader in &self.leaders {
            let asked = |partition: &i32| ListOffsetsPartition {
                partition_index: *partition,
                timestamp,
                ..Default::default()
            };
            let partitions = leader.partitions.iter().map(asked).collect();
            let topics = vec![ListOffsetsTopic { name: self.topic.clone(), partitions }];
            let request = ListOffsetsRequest { replica_id: NO_REPLICA, topics, ..Default::default() };
            let answer = self.connect_to(leader).await?.call(&request).await;
            let answer = answer.context("cannot ask for offsets")?;
            for partition in answer.topics.into_iter().flat_map(|topic| topic.partitions) {
                let index = partition.partition_index;
                ErrorCode::check(partition.error_code)
                    .with_context(|| format!("cannot ask for the offsets of partition {index}"))?;
                offsets.insert(index, partition.offset);
            }
        }
        let missing = self.leaders.iter().flat_map(|leader| &leader.partitions);
        let missing = missing.copied().find(|partition| !offsets.contains_key(partition));
        ensure!(missing.is_none(), "the broker does not say the offsets of partition {missing:?}");
        Ok(offsets)
    }
}

#[cfg(test)]
mod tests {
    use floe_wire::metadata::{MetadataResponseBroker, MetadataResponsePartition};

    use super::*;

    fn found(error_code: i16, leader_ids: &[i32]) -> Found {
        let broker = |node_id| MetadataResponseBroker {
            node_id,
            host: format!("broker{node_id}"),
            port: 9_092,
            rack: None,
        };
        let metadata =
            MetadataResponse { brokers: vec![broker(1), broker(2), broker(3)], ..Default::default() };
        let partition = |(index, leader_id): (usize, &i32)| MetadataResponsePartition {
            partition_index: index as i32,
            leader_id: *leader_id,
            ..Default::default()
        };
        let partitions = leader_ids.iter().enumerate().map(partition).rev().collect();
        let topic = MetadataResponseTopic { error_code, partitions, ..Default::default() };
        leaders(metadata, topic).expect("it is understood")
    }

    #[test]
    fn each_partition_belongs_to_its_leader() {
        let leader = |node: i32, partitions: &[i32]| Leader {
            node,
            host: format!("broker{node}"),
            port: 9_092,
            partitions: partitions.to_vec(),
        };
        assert_eq!(found(0, &[3, 1, 3]), Found::Led(vec![leader(1, &[1]), leader(3, &[0, 2])]));
    }

    #[test]
    fn a_topic_may_be_missing_or_without_leaders_for_now() {
        assert_eq!(found(ErrorCode::UnknownTopicOrPartition.number(), &[]), Found::Missing);
        assert_eq!(found(0, &[1, -1, 2]), Found::Waiting(1));
        assert_eq!(found(0, &[]), Found::Waiting(0));
        assert_eq!(found(ErrorCode::LeaderNotAvailable.number(), &[1]), Found::Waiting(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_is_not_ready_is_asked_again_for_a_while() {
        let env = Env::simulated(1);
        let asked = async |ready_after: u32, code: ErrorCode| {
            let mut times = 0;
            let outcome = once_ready(&env, async || {
                times += 1;
                if times > ready_after { Ok(()) } else { Err(Error::from(code).context("cannot ask")) }
            });
            (outcome.await.map_err(|error| error.to_string()), times)
        };
        assert_eq!(asked(0, ErrorCode::NotLeaderOrFollower).await, (Ok(()), 1));
        assert_eq!(asked(3, ErrorCode::NotLeaderOrFollower).await, (Ok(()), 4));
        let failed = Err("cannot ask".to_owned());
        assert_eq!(asked(3, ErrorCode::TopicAuthorizationFailed).await, (failed.clone(), 1));
        let (outcome, times) = asked(u32::MAX, ErrorCode::NotLeaderOrFollower).await;
        assert_eq!((outcome, times > 100), (failed, true));
    }

    #[test]
    fn another_number_of_partitions_is_refused() {
        let Found::Led(leaders) = found(0, &[1, 2, 3]) else { unreachable!("all are led") };
        let cluster = Cluster { topic: "t".to_owned(), leaders };
        let plan = |partitions| TopicPlan {
            name: "t".to_owned(),
            partitions,
            replication_factor: -1,
            configs: Vec::new(),
        };
        assert!(cluster.check_partitions(&plan(None)).is_ok());
        assert!(cluster.check_partitions(&plan(Some(3))).is_ok());
        let error = cluster.check_partitions(&plan(Some(4))).expect_err("three, not four");
        let said = "the topic t has 3 partitions, not 4: choose another --topic, or leave --partitions out";
        assert_eq!(error.to_string(), said);
    }
}
