//! The persisted form of a journal entry's envelope and changes, shared by the journals that keep bytes.
//!
//! ```text
//! envelope   u8 version = 1 | postcard (time ms, principal, client id, run id?, cause?, undo of?, comment?)
//! changes    u8 version = 1 | postcard [(key bytes, value bytes?)]
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::journal::{Change, Envelope, Lsn};
use crate::record::{put_postcard, take_postcard};
use floe_env::Timestamp;

const ENVELOPE_VERSION: u8 = 1;
const CHANGES_VERSION: u8 = 1;

/// The fields of an envelope in the order of version 1. They never change.
#[derive(Serialize, Deserialize)]
struct EnvelopeV1<'a> {
    time: i64,
    principal: &'a str,
    client_id: &'a str,
    run_id: Option<String>,
    cause: Option<String>,
    undo_of: Option<u64>,
    comment: Option<String>,
}

/// Encodes an envelope.
pub(crate) fn encode_envelope(envelope: &Envelope) -> Vec<u8> {
    let mut out = vec![ENVELOPE_VERSION];
    let Envelope { time, principal, client_id, run_id, cause, undo_of, comment } = envelope.clone();
    let fields = EnvelopeV1 {
        time: time.0,
        principal: &principal,
        client_id: &client_id,
        run_id,
        cause,
        undo_of: undo_of.map(|lsn| lsn.0),
        comment,
    };
    put_postcard(&fields, &mut out);
    out
}

/// Reads what [`encode_envelope`] wrote.
pub(crate) fn decode_envelope(bytes: &[u8]) -> Result<Envelope, DecodeError> {
    let body = body_of(bytes, ENVELOPE_VERSION, "envelope")?;
    let fields: EnvelopeV1<'_> =
        postcard::from_bytes(body).map_err(|e| DecodeError::Corrupt(e.to_string()))?;
    Ok(Envelope {
        time: Timestamp(fields.time),
        principal: fields.principal.into(),
        client_id: fields.client_id.into(),
        run_id: fields.run_id,
        cause: fields.cause,
        undo_of: fields.undo_of.map(Lsn),
        comment: fields.comment,
    })
}

/// Encodes the changes of a commit.
pub(crate) fn encode_changes(changes: &[Change]) -> Vec<u8> {
    let mut out = vec![CHANGES_VERSION];
    let pairs: Vec<(&Bytes, &Option<Bytes>)> = changes.iter().map(|c| (&c.key, &c.value)).collect();
    put_postcard(&pairs, &mut out);
    out
}

/// Reads what [`encode_changes`] wrote.
pub(crate) fn decode_changes(bytes: &[u8]) -> Result<Vec<Change>, DecodeError> {
    let body = body_of(bytes, CHANGES_VERSION, "list of changes")?;
    let pairs: Vec<(Bytes, Option<Bytes>)> = take_postcard(body)?;
    Ok(pairs.into_iter().map(|(key, value)| Change { key, value }).collect())
}

fn body_of<'a>(bytes: &'a [u8], known: u8, what: &str) -> Result<&'a [u8], DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Truncated),
        Some((&version, body)) if version == known => Ok(body),
        Some((&version, _)) => Err(DecodeError::Corrupt(format!(
            "{what} of version {version}, this build knows {known}: a newer floe wrote it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Journals in the field hold these bytes, so they never change.
    #[test]
    fn golden() {
        let mut envelope = Envelope::client("User:ann".into(), "etl-7".into());
        envelope.time = Timestamp(1_767_225_600_123);
        assert_eq!(hex(&encode_envelope(&envelope)), "01f6a1d5edee6608557365723a616e6e0565746c2d3700000000");
        envelope.run_id = Some("r".into());
        envelope.cause = Some("t/0/5".into());
        envelope.undo_of = Some(Lsn(300));
        envelope.comment = Some("oops".into());
        let full = "01f6a1d5edee6608557365723a616e6e0565746c2d3701017201 05742f302f3501ac0201046f6f7073";
        assert_eq!(hex(&encode_envelope(&envelope)), full.replace(' ', ""));
        let change = |key: &'static [u8], value: Option<&'static [u8]>| Change {
            key: Bytes::from_static(key),
            value: value.map(Bytes::from_static),
        };
        let changes = [change(b"\x0aabc", Some(b"\x01xy")), change(b"\x0b", None)];
        assert_eq!(hex(&encode_changes(&changes)), "0102040a616263010301787901 0b00".replace(' ', ""));
        assert_eq!(decode_envelope(&encode_envelope(&envelope)), Ok(envelope));
        assert_eq!(decode_changes(&encode_changes(&changes)), Ok(changes.to_vec()));
    }

    #[test]
    fn newer_and_broken_bytes_are_refused() {
        assert_eq!(decode_changes(&[]), Err(DecodeError::Truncated));
        assert!(decode_changes(&[2, 0]).unwrap_err().to_string().contains("newer floe"));
        assert!(decode_envelope(&[9]).unwrap_err().to_string().contains("newer floe"));
        // A count that the bytes cannot hold must not allocate.
        assert!(decode_changes(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
        assert!(decode_changes(&[1, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(
            pairs in proptest::collection::vec((any::<Vec<u8>>(), any::<Option<Vec<u8>>>()), 0..20),
            time in any::<i64>(), undo in any::<Option<u64>>(), texts in any::<[Option<String>; 3]>(),
            names in any::<[String; 2]>(), broken in any::<Vec<u8>>(),
        ) {
            let changes: Vec<Change> =
                pairs.into_iter().map(|(k, v)| Change { key: k.into(), value: v.map(Bytes::from) }).collect();
            prop_assert_eq!(decode_changes(&encode_changes(&changes)), Ok(changes));
            let [run_id, cause, comment] = texts;
            let [principal, client_id] = names;
            let envelope = Envelope {
                time: Timestamp(time), principal: principal.into(), client_id: client_id.into(), run_id, cause,
                undo_of: undo.map(Lsn), comment,
            };
            prop_assert_eq!(decode_envelope(&encode_envelope(&envelope)), Ok(envelope));
            let _ = decode_changes(&broken);
            let _ = decode_envelope(&broken);
        }
    }
}
