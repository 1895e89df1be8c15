//! Whole frames: length prefix, header, body.

use bytes::Bytes;

use crate::api::{ApiKey, Request};
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::fault::{Fault, WireError};
use crate::header::{RequestHeader, ResponseHeader};
use crate::message::Message;

/// The segments of a request, with length prefix and header.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<Vec<Bytes>, WireError> {
    let mut encoder = Encoder::frame();
    let client_id = Some(client_id.to_owned());
    let header = RequestHeader { api_key: R::API.number(), api_version: version, correlation_id, client_id };
    header.encode(&mut encoder)?;
    request.encode(&mut encoder, version)?;
    encoder.finish()
}

/// The segments of a response, with length prefix and header.
pub fn encode_response<M: Message>(
    response: &M,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
) -> Result<Vec<Bytes>, WireError> {
    let mut encoder = Encoder::frame();
    ResponseHeader { correlation_id }.encode(&mut encoder, api, version);
    response.encode(&mut encoder, version)?;
    encoder.finish()
}

/// Decodes a response of a known API and version from a frame without its prefix. Returns correlation id and body.
pub fn decode_response<R: Request>(frame: Bytes, version: i16) -> Result<(i32, R::Response), WireError> {
    let mut decoder = Decoder::new(frame);
    let header = ResponseHeader::decode(&mut decoder, R::API, version)?;
    let response = R::Response::decode(&mut decoder, version)?;
    decoder.finish()?;
    Ok((header.correlation_id, response))
}

/// Decodes a message that takes all of `bytes`.
pub fn decode_body<M: Message>(bytes: Bytes, version: i16) -> Result<M, WireError> {
    let mut decoder = Decoder::new(bytes);
    let message = M::decode(&mut decoder, version)?;
    decoder.finish()?;
    Ok(message)
}

/// The bytes of a message without header and prefix, in one piece.
pub fn encode_body<M: Message>(message: &M, version: i16) -> Result<Bytes, WireError> {
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, version)?;
    Ok(crate::rope::Rope(encoder.finish()?).to_bytes())
}

/// The length of a frame from its prefix. Negative lengths and those above `bytes_max` are refused.
pub fn frame_length(prefix: [u8; 4], bytes_max: usize) -> Result<usize, WireError> {
    let announced = i32::from_be_bytes(prefix);
    let length = usize::try_from(announced).map_err(|_| Fault::NegativeLength(announced))?;
    if length > bytes_max {
        return Err(Fault::TooLong(length).into());
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_frame_is_bounded() {
        assert_eq!(frame_length([0, 0, 1, 0], 256), Ok(256));
        assert_eq!(frame_length([0, 0, 1, 1], 256), Err(Fault::TooLong(257).into()));
        assert_eq!(frame_length([0xff; 4], 256), Err(Fault::NegativeLength(-1).into()));
    }
}
