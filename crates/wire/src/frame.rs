//! Whole frames: length prefix, header, body.

use bytes::Bytes;

use crate::api::{ApiKey, Message, Request};
use crate::decoder::Reader;
use crate::encoder::Writer;
use crate::fault::WireError;
use crate::header::{RequestHeader, ResponseHeader};

/// The segments of a request, with length prefix and header.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<Vec<Bytes>, WireError> {
    let mut writer = Writer::frame();
    let client_id = Some(client_id.to_owned());
    let header = RequestHeader { api_key: R::API.number(), api_version: version, correlation_id, client_id };
    header.encode(&mut writer)?;
    request.encode(&mut writer, version)?;
    writer.finish()
}

/// The segments of a response, with length prefix and header.
pub fn encode_response<M: Message>(
    response: &M,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
) -> Result<Vec<Bytes>, WireError> {
    let mut writer = Writer::frame();
    ResponseHeader { correlation_id }.encode(&mut writer, api, version);
    response.encode(&mut writer, version)?;
    writer.finish()
}

/// Reads a response of a known API and version from a frame without its prefix: correlation id and body.
pub fn decode_response<R: Request>(frame: Bytes, version: i16) -> Result<(i32, R::Response), WireError> {
    let mut reader = Reader::new(frame);
    let header = ResponseHeader::decode(&mut reader, R::API, version)?;
    let response = R::Response::decode(&mut reader, version)?;
    reader.finish()?;
    Ok((header.correlation_id, response))
}

/// Reads a message that is all of `bytes`.
pub fn decode_body<M: Message>(bytes: Bytes, version: i16) -> Result<M, WireError> {
    let mut reader = Reader::new(bytes);
    let message = M::decode(&mut reader, version)?;
    reader.finish()?;
    Ok(message)
}

/// The bytes of a message alone, in one piece.
pub fn encode_body<M: Message>(message: &M, version: i16) -> Result<Bytes, WireError> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version)?;
    Ok(crate::rope::Rope(writer.finish()?).to_bytes())
}
