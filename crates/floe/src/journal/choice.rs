//! Which journal a start opens: what the operator asked for, beside what is there. Pure.
//!
//! A cluster keeps the journal that it began with, and the claim of its store names it. A start that went on with
//! another one would be a second cluster in the same store, or an empty one.

use std::path::PathBuf;

use floe_log::{Claim, JournalId};
use thiserror::Error;

/// A kind of journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In files of the data directory.
    Local,
    /// In the store.
    Bucket,
    /// In a PostgreSQL server.
    Postgres,
}

impl Kind {
    fn of(journal: JournalId) -> Kind {
        match journal {
            JournalId::Local => Kind::Local,
            JournalId::Bucket(_) => Kind::Bucket,
            JournalId::Postgres(_) => Kind::Postgres,
        }
    }

    /// Where such a journal is, for people.
    fn place(self) -> &'static str {
        match self {
            Kind::Local => "in a data directory",
            Kind::Bucket => "in the store itself",
            Kind::Postgres => "in a PostgreSQL server",
        }
    }

    /// How it is asked for.
    fn flag(self) -> &'static str {
        match self {
            Kind::Local => "--journal local",
            Kind::Bucket => "--journal bucket",
            Kind::Postgres => "--journal postgres://USER:PASSWORD@HOST/DATABASE",
        }
    }
}

/// What is there before a start.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The claim of the store, and where it is.
    pub(crate) claim: Option<Claim>,
    pub(crate) claim_url: String,
    /// Whether the data directory has a journal, and the place for it.
    pub(crate) in_directory: bool,
    pub(crate) directory: PathBuf,
    /// Whether the store has a journal, and where.
    pub(crate) in_store: bool,
    pub(crate) store_url: String,
    /// Whether the store is on another machine.
    pub(crate) is_remote: bool,
}

/// What a start opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) kind: Kind,
    /// The id that the journal must have. Without one it is made if it is missing.
    pub(crate) expected: Option<u128>,
}

/// Why a start opens none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ChoiceError {
    /// The files of the cluster are not here.
    #[error(
        "the store belongs to the cluster {cluster} ({url}), and there is no metadata in {directory}: restore this \
         directory from a backup, or start with the data directory that has it. A new cluster needs a store that \
         nobody uses"
    )]
    NoMetadata { cluster: String, url: String, directory: String },
    /// The cluster has another kind of journal than what was asked for.
    #[error(
        "the store belongs to the cluster {cluster} ({url}), whose journal is {has}, and {asked} asks for another: \
         leave --journal out, or start with {flag}. A journal cannot be moved yet"
    )]
    Other { cluster: String, url: String, has: &'static str, asked: &'static str, flag: &'static str },
    /// The data directory has a journal, and the store is not its store.
    #[error(
        "the store belongs to the cluster {cluster} ({url}), whose journal is {has}, and {directory} has a journal of \
         its own: it is that of another cluster. Start with another data directory"
    )]
    OtherDirectory { cluster: String, url: String, has: &'static str, directory: String },
    /// Nobody said where the server is.
    #[error(
        "the store belongs to the cluster {cluster} ({url}), whose journal is in a PostgreSQL server: say where, with \
         {}",
        Kind::Postgres.flag()
    )]
    NoAddress { cluster: String, url: String },
    /// The data directory has a journal that was not asked for.
    #[error(
        "{directory} has a journal already, and {asked} asks for another. A journal cannot be moved yet: leave \
         --journal out to go on with it, or start a new cluster with another data directory and a store that \
         nobody uses"
    )]
    Kept { directory: String, asked: &'static str },
    /// The store has a journal inside, and another one was asked for.
    #[error(
        "{url} is a journal in the store, and {asked} asks for another: leave --journal out, or start with --journal \
         bucket. If it was made by mistake and nothing was ever written, use another bucket or prefix"
    )]
    InStore { url: String, asked: &'static str },
    /// There are two journals, and no cluster has claimed the store.
    #[error(
        "there are two journals, one in {directory} and one in the store ({url}), and no cluster has claimed the \
         store: start with another data directory, or with another bucket or prefix"
    )]
    Two { directory: String, url: String },
}

/// Chooses. `asked` is what the operator said.
///
/// # Errors
/// See [`ChoiceError`]; nothing was changed.
pub(crate) fn choose(asked: Option<Kind>, found: &Found) -> Result<Choice, ChoiceError> {
    match &found.claim {
        Some(claim) => claimed(asked, claim, found),
        None => unclaimed(asked, found).map(|kind| Choice { kind, expected: None }),
    }
}

fn claimed(asked: Option<Kind>, claim: &Claim, found: &Found) -> Result<Choice, ChoiceError> {
    let (has, cluster, url) = (Kind::of(claim.journal), claim.cluster.clone(), found.claim_url.clone());
    let directory = found.directory.display().to_string();
    if let Some(asked) = asked.filter(|asked| *asked != has) {
        let (asked, flag, has) = (asked.flag(), has.flag(), has.place());
        return Err(ChoiceError::Other { cluster, url, has, asked, flag });
    }
    let expected = match claim.journal {
        JournalId::Local if !found.in_directory => {
            // Files of a new journal would be in the way of those that somebody restores from a backup.
            return Err(ChoiceError::NoMetadata { cluster, url, directory });
        }
        JournalId::Local => None,
        JournalId::Bucket(_) | JournalId::Postgres(_) if found.in_directory => {
            return Err(ChoiceError::OtherDirectory { cluster, url, has: has.place(), directory });
        }
        JournalId::Postgres(_) if asked.is_none() => return Err(ChoiceError::NoAddress { cluster, url }),
        JournalId::Bucket(id) | JournalId::Postgres(id) => Some(id),
    };
    Ok(Choice { kind: has, expected })
}

/// What a new cluster begins with, or one whose first start was cut short.
fn unclaimed(asked: Option<Kind>, found: &Found) -> Result<Kind, ChoiceError> {
    let (directory, url) = (found.directory.display().to_string(), found.store_url.clone());
    if found.in_directory && found.in_store {
        return Err(ChoiceError::Two { directory, url });
    }
    match asked {
        Some(asked) if asked != Kind::Local && found.in_directory => {
            Err(ChoiceError::Kept { directory, asked: asked.flag() })
        }
        Some(asked) if asked != Kind::Bucket && found.in_store => {
            Err(ChoiceError::InStore { url, asked: asked.flag() })
        }
        Some(asked) => Ok(asked),
        None if found.in_directory => Ok(Kind::Local),
        None if found.in_store || found.is_remote => Ok(Kind::Bucket),
        None => Ok(Kind::Local),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 3] = [Kind::Local, Kind::Bucket, Kind::Postgres];

    fn found(journal: Option<JournalId>, in_directory: bool, in_store: bool, is_remote: bool) -> Found {
        Found {
            claim: journal.map(|journal| Claim { cluster: "CLUSTER".to_owned(), journal }),
            claim_url: "s3://b/floe/cluster".to_owned(),
            in_directory,
            directory: "data/journal".into(),
            in_store,
            store_url: "s3://b/journal".to_owned(),
            is_remote,
        }
    }

    fn ok(kind: Kind, expected: Option<u128>) -> Result<Choice, ChoiceError> {
        Ok(Choice { kind, expected })
    }

    #[test]
    fn a_new_cluster_begins_with_a_journal_where_its_records_are() {
        for (is_remote, kind) in [(true, Kind::Bucket), (false, Kind::Local)] {
            let nothing = found(None, false, false, is_remote);
            assert_eq!(choose(None, &nothing), ok(kind, None));
            for asked in KINDS {
                assert_eq!(choose(Some(asked), &nothing), ok(asked, None));
            }
        }
    }

    #[test]
    fn a_data_directory_that_has_a_journal_keeps_it() {
        for is_remote in [true, false] {
            let kept = found(None, true, false, is_remote);
            for asked in [None, Some(Kind::Local)] {
                assert_eq!(choose(asked, &kept), ok(Kind::Local, None));
            }
            for asked in [Kind::Bucket, Kind::Postgres] {
                assert!(matches!(choose(Some(asked), &kept), Err(ChoiceError::Kept { .. })));
            }
        }
    }

    #[test]
    fn a_first_start_that_was_cut_short_between_journal_and_claim_goes_on() {
        for is_remote in [true, false] {
            let cut = found(None, false, true, is_remote);
            for asked in [None, Some(Kind::Bucket)] {
                assert_eq!(choose(asked, &cut), ok(Kind::Bucket, None));
            }
            for asked in [Kind::Local, Kind::Postgres] {
                assert!(matches!(choose(Some(asked), &cut), Err(ChoiceError::InStore { .. })), "{asked:?}");
            }
            let both = found(None, true, true, is_remote);
            for asked in [None, Some(Kind::Local), Some(Kind::Bucket), Some(Kind::Postgres)] {
                assert!(matches!(choose(asked, &both), Err(ChoiceError::Two { .. })));
            }
        }
        // The server has the tables, and the same setting finds them.
        assert_eq!(choose(Some(Kind::Postgres), &found(None, false, false, true)), ok(Kind::Postgres, None));
    }

    #[test]
    fn a_cluster_keeps_the_journal_that_its_claim_names() {
        let claims = [
            (JournalId::Local, Kind::Local, None),
            (JournalId::Bucket(7), Kind::Bucket, Some(7)),
            (JournalId::Postgres(8), Kind::Postgres, Some(8)),
        ];
        for (journal, kind, expected) in claims {
            for (in_store, is_remote) in [(true, true), (true, false), (false, true), (false, false)] {
                let here = found(Some(journal), kind == Kind::Local, in_store, is_remote);
                assert_eq!(choose(Some(kind), &here), ok(kind, expected));
                if kind != Kind::Postgres {
                    assert_eq!(choose(None, &here), ok(kind, expected));
                }
                for other in KINDS.into_iter().filter(|other| *other != kind) {
                    let refused = choose(Some(other), &here).expect_err("another journal");
                    assert!(matches!(refused, ChoiceError::Other { .. }), "{refused}");
                    assert!(refused.to_string().contains("cannot be moved yet"), "{refused}");
                }
            }
        }
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_are_named_with_what_to_do() {
        let refused = |asked, found: &Found| choose(asked, found).expect_err("refused").to_string();
        let lost = refused(None, &found(Some(JournalId::Local), false, false, true));
        assert!(lost.contains("there is no metadata in data/journal") && lost.contains("backup"), "{lost}");
        let unsaid = refused(None, &found(Some(JournalId::Postgres(8)), false, false, true));
        assert!(unsaid.contains("--journal postgres://"), "{unsaid}");
        for journal in [JournalId::Bucket(7), JournalId::Postgres(8)] {
            let other = refused(None, &found(Some(journal), true, false, true));
            assert!(other.contains("another data directory") && other.contains("data/journal"), "{other}");
        }
    }
}
