//! The field types of the protocol, each with its decoding and encoding.

use bytes::Bytes;
use uuid::Uuid;

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::fault::{Fault, WireError};
use crate::rope::Rope;

/// The form of a message on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    /// The version of the message.
    pub(crate) version: i16,
    /// Whether the version is flexible: compact lengths, and tagged fields after each structure.
    pub(crate) flexible: bool,
}

/// The type of a field.
pub(crate) trait Field: Sized + PartialEq {
    /// The least number of bytes that a value takes on the wire.
    fn size_min(form: Form) -> usize;
    fn read(decoder: &mut Decoder, form: Form) -> Result<Self, WireError>;
    fn write(&self, encoder: &mut Encoder, form: Form) -> Result<(), WireError>;
    fn is_null(&self) -> bool {
        false
    }
}

/// A field type whose length can say null.
pub(crate) trait Nullable: Sized + PartialEq {
    /// The least number of bytes that a value takes on the wire; null takes no fewer.
    fn size_min(form: Form) -> usize;
    fn read_nullable(decoder: &mut Decoder, form: Form) -> Result<Option<Self>, WireError>;
    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, form: Form) -> Result<(), WireError>;
}

impl<T: Nullable> Field for Option<T> {
    fn size_min(form: Form) -> usize {
        T::size_min(form)
    }

    fn read(decoder: &mut Decoder, form: Form) -> Result<Self, WireError> {
        T::read_nullable(decoder, form)
    }

    fn write(&self, encoder: &mut Encoder, form: Form) -> Result<(), WireError> {
        T::write_nullable(self.as_ref(), encoder, form)
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }
}

/// Numbers: big-endian, as wide as their type.
macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn size_min(_: Form) -> usize {
                size_of::<$number>()
            }

            fn read(decoder: &mut Decoder, _: Form) -> Result<Self, WireError> {
                Ok(<$number>::from_be_bytes(decoder.array()?))
            }

            fn write(&self, encoder: &mut Encoder, _: Form) -> Result<(), WireError> {
                encoder.put(&self.to_be_bytes());
                Ok(())
            }
        }
    )*};
}

numbers!(i8, i16, i32, i64);

impl Field for bool {
    fn size_min(_: Form) -> usize {
        1
    }

    fn read(decoder: &mut Decoder, _: Form) -> Result<Self, WireError> {
        Ok(decoder.array()? != [0])
    }

    fn write(&self, encoder: &mut Encoder, _: Form) -> Result<(), WireError> {
        encoder.put(&[u8::from(*self)]);
        Ok(())
    }
}

impl Field for Uuid {
    fn size_min(_: Form) -> usize {
        16
    }

    fn read(decoder: &mut Decoder, _: Form) -> Result<Self, WireError> {
        Ok(Uuid::from_bytes(decoder.array()?))
    }

    fn write(&self, encoder: &mut Encoder, _: Form) -> Result<(), WireError> {
        encoder.put(self.as_bytes());
        Ok(())
    }
}

/// A nullable type in a field that is not nullable.
macro_rules! never_null {
    ($([$($generics:tt)*] $type:ty),*) => {$(
        impl $($generics)* Field for $type {
            fn size_min(form: Form) -> usize {
                <$type as Nullable>::size_min(form)
            }

            fn read(decoder: &mut Decoder, form: Form) -> Result<Self, WireError> {
                <$type>::read_nullable(decoder, form)?.ok_or(Fault::Null { version: form.version }.into())
            }

            fn write(&self, encoder: &mut Encoder, form: Form) -> Result<(), WireError> {
                <$type>::write_nullable(Some(self), encoder, form)
            }
        }
    )*};
}

never_null!([] String, [] Bytes, [] Rope, [<T: Field>] Vec<T>);

impl Nullable for String {
    fn size_min(form: Form) -> usize {
        if form.flexible { 1 } else { 2 }
    }

    fn read_nullable(decoder: &mut Decoder, form: Form) -> Result<Option<Self>, WireError> {
        match decoder.length_short(form.flexible)? {
            Some(length) => decoder.string(length).map(Some),
            None => Ok(None),
        }
    }

    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, form: Form) -> Result<(), WireError> {
        encoder.put_length_short(value.map(String::len), form.flexible)?;
        encoder.put(value.map_or(&[], |text| text.as_bytes()));
        Ok(())
    }
}

impl Nullable for Bytes {
    fn size_min(form: Form) -> usize {
        if form.flexible { 1 } else { 4 }
    }

    fn read_nullable(decoder: &mut Decoder, form: Form) -> Result<Option<Self>, WireError> {
        match decoder.length_long(form.flexible)? {
            Some(length) => decoder.slice(length).map(Some),
            None => Ok(None),
        }
    }

    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, form: Form) -> Result<(), WireError> {
        encoder.put_length_long(value.map(Bytes::len), form.flexible)?;
        if let Some(bytes) = value {
            encoder.put_shared(bytes);
        }
        Ok(())
    }
}

impl Nullable for Rope {
    fn size_min(form: Form) -> usize {
        <Bytes as Nullable>::size_min(form)
    }

    fn read_nullable(decoder: &mut Decoder, form: Form) -> Result<Option<Self>, WireError> {
        let Some(bytes) = Bytes::read_nullable(decoder, form)? else { return Ok(None) };
        if bytes.is_empty() {
            return Ok(Some(Rope::default()));
        }
        decoder.charge(size_of::<Bytes>())?;
        Ok(Some(Rope::from(bytes)))
    }

    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, form: Form) -> Result<(), WireError> {
        encoder.put_length_long(value.map(Rope::len), form.flexible)?;
        for piece in value.into_iter().flat_map(|rope| &rope.0) {
            encoder.put_shared(piece);
        }
        Ok(())
    }
}

impl<T: Field> Nullable for Vec<T> {
    fn size_min(form: Form) -> usize {
        if form.flexible { 1 } else { 4 }
    }

    fn read_nullable(decoder: &mut Decoder, form: Form) -> Result<Option<Self>, WireError> {
        let Some(count) = decoder.length_long(form.flexible)? else { return Ok(None) };
        decoder.claim::<T>(count, T::size_min(form))?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::read(decoder, form)?);
        }
        Ok(Some(items))
    }

    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, form: Form) -> Result<(), WireError> {
        encoder.put_length_long(value.map(Vec::len), form.flexible)?;
        for item in value.into_iter().flatten() {
            item.write(encoder, form)?;
        }
        Ok(())
    }
}
