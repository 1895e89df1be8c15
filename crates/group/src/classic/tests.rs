//! Scripts of groups: one command per line, each followed by its answer and by the replies that it releases. Times are
//! in milliseconds. The initial delay is 1,000; session timeouts are 10,000 and rebalance timeouts 30,000 unless a line
//! says otherwise.

use std::fmt::Write as _;

use bytes::Bytes;

use super::*;

const RULES: Rules = Rules { initial_delay_ms: 1_000, members_max: 3, bytes_max: 1 << 20 };

/// Runs a script and compares the answers. Commands, with `key=value` options:
///
/// ```text
/// join A|?name [static=x] [known] [skip] [protocols=p,q] [type=t] [session=ms]     ?name: a newcomer, gets that id
/// sync A gen=1 [A:x B:y]    heartbeat A gen=1    leave A|- [static=x]    commit A|- gen=1    at 5000    show
/// ```
fn check(script: &str) {
    let mut group = Group::new(RULES, 0, "");
    let mut now = Moment(0);
    let mut waiters = 0;
    let mut got = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('>')) {
        writeln!(got, "{line}").expect("a string");
        let mut out = Vec::new();
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = run(&mut group, &mut now, &mut waiters, &words, &mut out);
        group.check();
        if let Some(answer) = answer {
            writeln!(got, "> {answer}").expect("a string");
        }
        for reply in out {
            writeln!(got, "> {}", show(&reply)).expect("a string");
        }
    }
    let want: String =
        script.lines().map(str::trim).filter(|line| !line.is_empty()).fold(String::new(), |mut all, line| {
            writeln!(all, "{line}").expect("a string");
            all
        });
    assert_eq!(got, want, "\ngot:\n{got}\nwant:\n{want}");
}

fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn run(
    group: &mut Group,
    now: &mut Moment,
    waiters: &mut u64,
    words: &[&str],
    out: &mut Vec<Reply>,
) -> Option<String> {
    let text = |result: Result<(), Refusal>| {
        Some(result.map_or_else(|refusal| format!("{refusal:?}"), |()| "ok".into()))
    };
    let generation = option(words, "gen").map_or(0, |text| text.parse().expect("a number"));
    let instance_id = option(words, "static");
    let member_id = words.get(1).copied().filter(|word| *word != "-").unwrap_or_default();
    let speaker = Speaker { member_id, instance_id };
    *waiters += 1;
    match words[0] {
        "join" => {
            group.join(*now, Waiter(*waiters), join(words), out);
            None
        }
        "sync" => {
            let pairs = words.iter().filter_map(|word| word.split_once(':'));
            let assignments =
                pairs.map(|(id, text)| (id.to_owned(), Bytes::copy_from_slice(text.as_bytes())));
            let sync = Sync {
                generation,
                member_id: member_id.to_owned(),
                instance_id: instance_id.map(str::to_owned),
                protocol_type: option(words, "type").map(str::to_owned),
                protocol: option(words, "protocol").map(str::to_owned),
                assignments: assignments.collect(),
            };
            group.sync(*now, Waiter(*waiters), sync, out);
            None
        }
        "heartbeat" => text(group.heartbeat(*now, speaker, generation)),
        "leave" => text(group.leave(*now, speaker, out)),
        "commit" => text(group.commit(*now, speaker, generation)),
        "delete" => text(group.delete()),
        "show" => {
            let members: Vec<&str> = group.members().map(|member| member.id.as_str()).collect();
            let leader = group.leader().unwrap_or("-");
            let (state, generation) = (group.state().name(), group.generation());
            Some(format!("{state} gen={generation} leader={leader} members={}", members.join(",")))
        }
        "at" => {
            // Like the coordinator: at each deadline on the way, and at the end.
            let end = Moment(words[1].parse().expect("a number"));
            while let Some(deadline) = group.next_deadline().filter(|deadline| *deadline <= end) {
                assert!(deadline > *now || *now == Moment(0), "a deadline that stays is an endless loop");
                *now = deadline.max(*now);
                group.expire(*now, out);
            }
            *now = end;
            group.expire(*now, out);
            None
        }
        other => panic!("unknown command {other}"),
    }
}

fn join(words: &[&str]) -> Join {
    let (member_id, fresh_id) = match words[1].strip_prefix('?') {
        Some(fresh) => ("", fresh),
        None => (words[1], "unused"),
    };
    let protocols = option(words, "protocols").unwrap_or("range").split(',').map(|offer| {
        let (name, metadata) = offer.split_once('/').unwrap_or((offer, ""));
        Protocol { name: name.to_owned(), metadata: Bytes::copy_from_slice(metadata.as_bytes()) }
    });
    Join {
        member_id: member_id.to_owned(),
        fresh_id: fresh_id.to_owned(),
        instance_id: option(words, "static").map(str::to_owned),
        client_id: "client".to_owned(),
        client_host: "/host".to_owned(),
        session_timeout_ms: option(words, "session").map_or(10_000, |text| text.parse().expect("a number")),
        rebalance_timeout_ms: 30_000,
        protocol_type: option(words, "type").unwrap_or("consumer").to_owned(),
        protocols: protocols.collect(),
        require_known_id: words.contains(&"known"),
        can_skip_assignment: words.contains(&"skip"),
    }
}

fn show(reply: &Reply) -> String {
    match reply {
        Reply::Join(_, Ok(joined)) => {
            let members: Vec<String> = joined
                .members
                .iter()
                .map(|member| format!("{}/{}", member.member_id, String::from_utf8_lossy(&member.metadata)))
                .collect();
            let Joined { member_id, generation, protocol, leader, .. } = joined;
            let skip = if joined.skip_assignment { " skip" } else { "" };
            format!(
                "{member_id} joined gen={generation} {protocol} leader={leader} [{}]{skip}",
                members.join(" ")
            )
        }
        Reply::Join(_, Err(refusal)) => format!("join: {refusal:?}"),
        Reply::Sync(_, Ok(synced)) => format!("sync: {}", String::from_utf8_lossy(&synced.assignment)),
        Reply::Sync(_, Err(refusal)) => format!("sync: {refusal:?}"),
    }
}

/// Two members that joined together: the start of most scripts.
const PAIR: &str = "
    join ?A protocols=range/a
    join ?B protocols=range/b
    at 2000
    > A joined gen=1 range leader=A [A/a B/b]
    > B joined gen=1 range leader=A []
    sync B gen=1
    sync A gen=1 A:0 B:1
    > sync: 0
    > sync: 1
    show
    > Stable gen=1 leader=A members=A,B
";

fn check_pair(rest: &str) {
    check(&format!("{PAIR}{rest}"));
}

#[test]
fn the_initial_delay_merges_joins_and_newcomers_extend_it() {
    check(
        "join ?A
         at 900
         join ?B
         at 1999
         show
         > PreparingRebalance gen=0 leader=A members=A,B
         at 2000
         > A joined gen=1 range leader=A [A/ B/]
         > B joined gen=1 range leader=A []",
    );
}

#[test]
fn a_life_of_heartbeats_commits_and_leaving() {
    check_pair(
        "heartbeat A gen=1
         > ok
         heartbeat B gen=0
         > IllegalGeneration
         heartbeat C gen=1
         > UnknownMember
         commit B gen=1
         > ok
         commit B gen=2
         > IllegalGeneration
         commit - gen=-1
         > UnknownMember
         leave B
         > ok
         heartbeat A gen=1
         > RebalanceInProgress
         commit A gen=1
         > ok
         sync A gen=1
         > sync: RebalanceInProgress
         join A protocols=range/a2
         > A joined gen=2 range leader=A [A/a2]
         commit A gen=2
         > RebalanceInProgress
         leave A
         > ok
         show
         > Empty gen=3 leader=- members=
         commit - gen=-1
         > ok
         commit A gen=2
         > UnknownMember",
    );
}

/// The Java client commits so with `assign()` and a configured `group.instance.id`.
#[test]
fn who_assigns_itself_commits_under_any_name_while_the_group_is_empty() {
    check(
        "commit - gen=-1 static=x
         > ok
         commit A gen=-1
         > ok
         commit - gen=0 static=x
         > UnknownMember
         join ?A static=x
         at 1000
         > A joined gen=1 range leader=A [A/]
         commit - gen=-1
         > UnknownMember
         commit - gen=-1 static=y
         > UnknownMember
         commit - gen=-1 static=x
         > FencedInstance
         commit A gen=-1 static=x
         > IllegalGeneration",
    );
}

#[test]
fn the_silent_are_expelled_and_the_leader_is_replaced() {
    check_pair(
        "at 9000
         heartbeat B gen=1
         > ok
         at 12001
         show
         > PreparingRebalance gen=1 leader=B members=B
         join B protocols=range/b2
         > B joined gen=2 range leader=B [B/b2]
         at 22001
         show
         > Empty gen=3 leader=- members=",
    );
}

#[test]
fn a_rebalance_ends_without_those_who_do_not_come() {
    check_pair(
        "join ?C session=60000
         heartbeat A gen=1
         > RebalanceInProgress
         join B protocols=range/b
         at 11000
         heartbeat A gen=1
         > RebalanceInProgress
         at 20000
         heartbeat A gen=1
         > RebalanceInProgress
         at 29000
         heartbeat A gen=1
         > RebalanceInProgress
         at 32000
         > B joined gen=2 range leader=B [B/b C/]
         > C joined gen=2 range leader=B []
         heartbeat A gen=1
         > UnknownMember",
    );
}

#[test]
fn members_that_join_and_never_synchronise_are_expelled() {
    check(
        "join ?A
         join ?B session=1800000
         at 2000
         > A joined gen=1 range leader=A [A/ B/]
         > B joined gen=1 range leader=A []
         sync A gen=1 A:0
         > sync: 0
         at 11000
         heartbeat A gen=1
         > ok
         at 20000
         heartbeat A gen=1
         > ok
         at 29000
         heartbeat A gen=1
         > ok
         at 32000
         show
         > PreparingRebalance gen=1 leader=A members=A",
    );
}

/// Static or not, a member that joined must ask for its assignment, or the others wait for ever.
#[test]
fn a_static_leader_that_lives_and_never_assigns_is_expelled() {
    check(
        "join ?A static=x session=60000
         join ?B session=60000
         at 2000
         > A joined gen=1 range leader=A [A/ B/]
         > B joined gen=1 range leader=A []
         sync B gen=1
         at 20000
         heartbeat A gen=1 static=x
         > ok
         at 32000
         > sync: RebalanceInProgress
         heartbeat A gen=1 static=x
         > UnknownMember
         show
         > PreparingRebalance gen=1 leader=B members=B",
    );
}

#[test]
fn a_leader_that_dies_before_it_assigns_lets_the_others_try_again() {
    check(
        "join ?A
         join ?B
         at 2000
         > A joined gen=1 range leader=A [A/ B/]
         > B joined gen=1 range leader=A []
         sync B gen=1
         at 12000
         > sync: RebalanceInProgress
         show
         > PreparingRebalance gen=1 leader=B members=B
         join B
         > B joined gen=2 range leader=B [B/]",
    );
}

#[test]
fn the_member_id_is_required_and_pending_members_hold_up_the_rebalance() {
    check(
        "join ?A known
         > join: MemberIdRequired(\"A\")
         show
         > Empty gen=0 leader=- members=
         join A known
         at 1000
         > A joined gen=1 range leader=A [A/]
         sync A gen=1 A:0
         > sync: 0
         join ?B known
         > join: MemberIdRequired(\"B\")
         show
         > Stable gen=1 leader=A members=A
         join B known
         join ?C known
         > join: MemberIdRequired(\"C\")
         join A
         show
         > PreparingRebalance gen=1 leader=A members=A,B
         leave C
         > ok
         > A joined gen=2 range leader=A [A/ B/]
         > B joined gen=2 range leader=A []
         join ?D known
         > join: MemberIdRequired(\"D\")
         join ?E known
         > join: GroupFull
         heartbeat D gen=2
         > UnknownMember",
    );
}

#[test]
fn a_pending_member_is_forgotten_after_its_session() {
    check(
        "join ?A
         at 2000
         > A joined gen=1 range leader=A [A/]
         sync A gen=1 A:0
         > sync: 0
         join ?B known
         > join: MemberIdRequired(\"B\")
         join ?C
         at 11000
         heartbeat A gen=1
         > RebalanceInProgress
         join A
         at 12000
         > A joined gen=2 range leader=A [A/ C/]
         > C joined gen=2 range leader=A []
         join B known
         > join: UnknownMember",
    );
}

#[test]
fn static_members_come_back_without_a_rebalance_and_fence_their_doubles() {
    check(
        "join ?A static=x skip
         join ?B static=y
         at 2000
         > A joined gen=1 range leader=A [A/ B/]
         > B joined gen=1 range leader=A []
         sync B gen=1 static=y
         sync A gen=1 static=x A:0 B:1
         > sync: 0
         > sync: 1
         join ?B2 static=y
         > B2 joined gen=1 range leader=A []
         sync B2 gen=1 static=y
         > sync: 1
         heartbeat B gen=1 static=y
         > FencedInstance
         commit B gen=1 static=y
         > FencedInstance
         leave B static=y
         > FencedInstance
         heartbeat B gen=1
         > UnknownMember
         join ?A2 static=x skip
         > A2 joined gen=1 range leader=A2 [A2/ B2/] skip
         join ?A3 static=x
         > A3 joined gen=1 range leader=A2 []
         show
         > Stable gen=1 leader=A3 members=A3,B2
         leave - static=z
         > UnknownMember
         leave - static=y
         > ok
         show
         > PreparingRebalance gen=1 leader=A3 members=A3",
    );
}

#[test]
fn a_static_member_that_waits_is_fenced_and_a_changed_protocol_rebalances() {
    check(
        "join ?A static=x
         join ?A2 static=x
         > join: FencedInstance
         at 2000
         > A2 joined gen=1 range leader=A2 [A2/]
         sync A2 gen=1 A2:0
         > sync: 0
         join ?A3 static=x protocols=sticky
         > A3 joined gen=2 sticky leader=A3 [A3/]
         join ?A4 static=x protocols=sticky
         > A4 joined gen=3 sticky leader=A4 [A4/]",
    );
}

/// It would take over the instance of another member without a common protocol.
#[test]
fn an_id_of_a_dynamic_member_takes_over_no_static_member() {
    check(
        "join ?A static=x
         at 1000
         > A joined gen=1 range leader=A [A/]
         sync A gen=1 static=x A:0
         > sync: 0
         join ?P known
         > join: MemberIdRequired(\"P\")
         join P static=x protocols=other
         > join: UnknownMember
         join P static=y
         > join: UnknownMember
         show
         > Stable gen=1 leader=A members=A
         join P
         join A static=x
         > A joined gen=2 range leader=A [A/ P/]
         > P joined gen=2 range leader=A []",
    );
}

#[test]
fn a_static_member_stays_until_its_session_ends() {
    check(
        "join ?A
         join ?B static=y session=60000
         at 2000
         > A joined gen=1 range leader=A [A/ B/]
         > B joined gen=1 range leader=A []
         sync B gen=1
         sync A gen=1 A:0 B:1
         > sync: 0
         > sync: 1
         join A protocols=range/new
         at 32000
         > A joined gen=2 range leader=A [A/new B/]
         show
         > CompletingRebalance gen=2 leader=A members=A,B
         heartbeat B gen=2 static=y
         > ok",
    );
}

#[test]
fn the_protocol_that_all_know_and_most_prefer_wins() {
    check(
        "join ?A protocols=range/1,sticky/2
         join ?B protocols=sticky/3,range/4
         join ?C protocols=sticky/5,range/6
         at 3000
         > A joined gen=1 sticky leader=A [A/2 B/3 C/5]
         > B joined gen=1 sticky leader=A []
         > C joined gen=1 sticky leader=A []
         join ?D protocols=sticky
         > join: GroupFull
         leave C
         > ok
         join ?D protocols=other
         > join: InconsistentProtocol
         join ?D type=connect
         > join: InconsistentProtocol
         join ?D session=5999
         > join: InvalidSessionTimeout",
    );
}

#[test]
fn answers_that_were_lost_are_given_again() {
    check(
        "join ?A protocols=range/a
         join ?B protocols=range/b
         at 2000
         > A joined gen=1 range leader=A [A/a B/b]
         > B joined gen=1 range leader=A []
         join B protocols=range/b
         > B joined gen=1 range leader=A []
         join A protocols=range/a
         > A joined gen=1 range leader=A [A/a B/b]
         sync A gen=1 A:0 B:1 protocol=range type=consumer
         > sync: 0
         sync B gen=1 protocol=sticky
         > sync: InconsistentProtocol
         sync B gen=1
         > sync: 1
         sync B gen=1
         > sync: 1
         join B protocols=range/b
         > B joined gen=1 range leader=A []
         join A protocols=range/a
         show
         > PreparingRebalance gen=1 leader=A members=A,B",
    );
}

#[test]
fn a_rebalance_during_the_assignment_sends_everybody_back() {
    check(
        "join ?A
         join ?B
         at 2000
         > A joined gen=1 range leader=A [A/ B/]
         > B joined gen=1 range leader=A []
         sync B gen=1
         join ?C
         > sync: RebalanceInProgress
         sync A gen=1 A:0
         > sync: RebalanceInProgress
         join A
         join B
         > A joined gen=2 range leader=A [A/ B/ C/]
         > B joined gen=2 range leader=A []
         > C joined gen=2 range leader=A []",
    );
}

#[test]
fn a_deleted_group_answers_nobody() {
    check(
        "join ?A
         delete
         > NotEmpty
         leave A
         > ok
         > join: UnknownMember
         show
         > Empty gen=1 leader=- members=
         delete
         > ok
         join ?B
         > join: NotAvailable
         heartbeat A gen=1
         > NotAvailable",
    );
}

/// Planted bugs, one per invariant. The check must see each.
#[test]
fn the_check_sees_what_is_broken() {
    type Plant = (&'static str, fn(&mut Group));
    let plants: &[Plant] = &[
        ("a leader who is no member", |group| group.leader = Some("nobody".to_owned())),
        ("members without a leader", |group| group.leader = None),
        ("a rebalance without an end", |group| group.state = GroupState::PreparingRebalance),
        ("members of an empty group", |group| group.state = GroupState::Empty),
        ("an instance without a member", |group| {
            group.instances.insert("x".to_owned(), "A".to_owned());
        }),
        ("a member that is pending", |group| {
            group.pending.insert("A".to_owned(), Moment(0));
        }),
        ("a static member without its instance", |group| {
            group.members.get_mut("A").expect("a member").instance_id = Some("x".to_owned());
        }),
        ("members who cannot agree on a protocol", |group| {
            group.members.get_mut("A").expect("a member").protocols.clear();
        }),
        ("a join that nobody will answer", |group| {
            group.members.get_mut("A").expect("a member").awaiting_join = Some(Waiter(9));
        }),
    ];
    for (what, plant) in plants {
        let mut group = Group::new(RULES, 0, "");
        let mut out = Vec::new();
        group.join(Moment(0), Waiter(1), join(&["join", "?A"]), &mut out);
        group.expire(Moment(1_000), &mut out);
        group.check();
        plant(&mut group);
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| group.check()));
        assert!(seen.is_err(), "{what} is not seen");
    }
}

/// Random commands, so many that every branch is met. The invariants of [`Group::check`] hold after each, every
/// join and sync is answered once, and the group ends empty when time passes without commands.
#[test]
fn random_walks_keep_the_invariants() {
    for seed in 0..400 {
        let mut random = seed * 2 + 1;
        let mut next = move |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let mut group = Group::new(RULES, 0, "");
        let mut now = Moment(0);
        let mut open = std::collections::BTreeSet::new();
        let mut waiters = 0;
        for step in 0..300u64 {
            let mut out = Vec::new();
            let known = group.members().map(|member| &member.id).chain(group.pending.keys());
            let ids: Vec<String> = known.cloned().collect();
            let id = ids.get(next(4) as usize).cloned().unwrap_or_default();
            let instance = (next(3) == 0).then(|| format!("i{}", next(2)));
            let generation = group.generation() - i32::from(next(8) == 0);
            waiters += 1;
            match next(7) {
                0 | 1 => {
                    let who = if id.is_empty() { "?" } else { &id };
                    let offers = ["a/1", "a/2", "b/1", "a/1,b/1", "b/2,a/2"][next(5) as usize];
                    let line = format!("join {who} protocols={offers}");
                    let mut join = join(&line.split_whitespace().collect::<Vec<_>>());
                    join.fresh_id = format!("m{step}");
                    join.instance_id = instance;
                    join.require_known_id = next(2) == 0;
                    join.can_skip_assignment = next(2) == 0;
                    open.insert(Waiter(waiters));
                    group.join(now, Waiter(waiters), join, &mut out);
                }
                2 => {
                    let assignments = ids.iter().map(|id| (id.clone(), Bytes::new())).collect();
                    let sync = Sync {
                        generation,
                        member_id: id,
                        instance_id: None,
                        protocol_type: None,
                        protocol: None,
                        assignments,
                    };
                    open.insert(Waiter(waiters));
                    group.sync(now, Waiter(waiters), sync, &mut out);
                }
                3 => drop(group.heartbeat(now, Speaker { member_id: &id, instance_id: None }, generation)),
                4 => {
                    let speaker = Speaker { member_id: &id, instance_id: instance.as_deref() };
                    drop(group.leave(now, speaker, &mut out));
                }
                5 => {
                    let speaker = Speaker { member_id: &id, instance_id: instance.as_deref() };
                    drop(group.commit(now, speaker, generation));
                }
                _ => {
                    now = now.after(next(4_000));
                    group.expire(now, &mut out);
                }
            }
            group.check();
            settle(&mut open, &out);
        }
        let mut out = Vec::new();
        for _ in 0..1_000 {
            let Some(deadline) = group.next_deadline() else { break };
            assert!(deadline > now, "seed {seed}: a deadline that does not move");
            now = deadline;
            group.expire(now, &mut out);
        }
        settle(&mut open, &out);
        assert_eq!(group.next_deadline(), None, "seed {seed}");
        assert_eq!(group.state(), GroupState::Empty, "seed {seed}");
        assert!(open.is_empty(), "seed {seed}: every request is answered in the end");
    }
}

fn settle(open: &mut std::collections::BTreeSet<Waiter>, out: &[Reply]) {
    for reply in out {
        let (Reply::Join(waiter, _) | Reply::Sync(waiter, _)) = reply;
        assert!(open.remove(waiter), "an answer to nobody, or the second to one");
    }
}
