//! The field types of the protocol: how each is read and written.

use bytes::Bytes;
use uuid::Uuid;

use crate::decoder::Reader;
use crate::encoder::Writer;
use crate::fault::{Fault, WireError};
use crate::rope::Rope;

/// In which shape a message is read or written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    /// The version of the message.
    pub(crate) version: i16,
    /// Whether the version is flexible: compact lengths, and tagged fields after each structure.
    pub(crate) flexible: bool,
}

/// A type that a field of a message may have.
pub(crate) trait Field: Sized + PartialEq {
    /// The least number of bytes that a value takes on the wire.
    fn size_min(form: Form) -> usize;
    /// Reads a value.
    fn read(reader: &mut Reader, form: Form) -> Result<Self, WireError>;
    /// Writes a value.
    fn write(&self, writer: &mut Writer, form: Form) -> Result<(), WireError>;
    /// Whether the value is null.
    fn is_null(&self) -> bool {
        false
    }
}

/// A field type whose length field can say that there is no value.
pub(crate) trait Nullable: Sized + PartialEq {
    /// The least number of bytes that a value takes on the wire; null takes no fewer.
    fn size_min(form: Form) -> usize;
    /// Reads a value or null.
    fn read_nullable(reader: &mut Reader, form: Form) -> Result<Option<Self>, WireError>;
    /// Writes a value, or null.
    fn write_nullable(value: Option<&Self>, writer: &mut Writer, form: Form) -> Result<(), WireError>;
}

impl<T: Nullable> Field for Option<T> {
    fn size_min(form: Form) -> usize {
        T::size_min(form)
    }

    fn read(reader: &mut Reader, form: Form) -> Result<Self, WireError> {
        T::read_nullable(reader, form)
    }

    fn write(&self, writer: &mut Writer, form: Form) -> Result<(), WireError> {
        T::write_nullable(self.as_ref(), writer, form)
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }
}

/// Numbers: as many bytes as the type has, the highest first.
macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn size_min(_: Form) -> usize {
                size_of::<$number>()
            }

            fn read(reader: &mut Reader, _: Form) -> Result<Self, WireError> {
                Ok(<$number>::from_be_bytes(reader.array()?))
            }

            fn write(&self, writer: &mut Writer, _: Form) -> Result<(), WireError> {
                writer.put(&self.to_be_bytes());
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

    fn read(reader: &mut Reader, _: Form) -> Result<Self, WireError> {
        Ok(reader.array()? != [0])
    }

    fn write(&self, writer: &mut Writer, _: Form) -> Result<(), WireError> {
        writer.put(&[u8::from(*self)]);
        Ok(())
    }
}

impl Field for Uuid {
    fn size_min(_: Form) -> usize {
        16
    }

    fn read(reader: &mut Reader, _: Form) -> Result<Self, WireError> {
        Ok(Uuid::from_bytes(reader.array()?))
    }

    fn write(&self, writer: &mut Writer, _: Form) -> Result<(), WireError> {
        writer.put(self.as_bytes());
        Ok(())
    }
}

/// A type that can be null, where the table says that it is not.
macro_rules! never_null {
    ($([$($generics:tt)*] $type:ty),*) => {$(
        impl $($generics)* Field for $type {
            fn size_min(form: Form) -> usize {
                <$type as Nullable>::size_min(form)
            }

            fn read(reader: &mut Reader, form: Form) -> Result<Self, WireError> {
                <$type>::read_nullable(reader, form)?.ok_or(Fault::Null { version: form.version }.into())
            }

            fn write(&self, writer: &mut Writer, form: Form) -> Result<(), WireError> {
                <$type>::write_nullable(Some(self), writer, form)
            }
        }
    )*};
}

never_null!([] String, [] Bytes, [] Rope, [<T: Field>] Vec<T>);

impl Nullable for String {
    fn size_min(form: Form) -> usize {
        if form.flexible { 1 } else { 2 }
    }

    fn read_nullable(reader: &mut Reader, form: Form) -> Result<Option<Self>, WireError> {
        match reader.length_short(form.flexible)? {
            Some(length) => reader.string(length).map(Some),
            None => Ok(None),
        }
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, form: Form) -> Result<(), WireError> {
        writer.put_length_short(value.map(String::len), form.flexible)?;
        writer.put(value.map_or(&[], |text| text.as_bytes()));
        Ok(())
    }
}

impl Nullable for Bytes {
    fn size_min(form: Form) -> usize {
        if form.flexible { 1 } else { 4 }
    }

    fn read_nullable(reader: &mut Reader, form: Form) -> Result<Option<Self>, WireError> {
        match reader.length_long(form.flexible)? {
            Some(length) => reader.slice(length).map(Some),
            None => Ok(None),
        }
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, form: Form) -> Result<(), WireError> {
        writer.put_length_long(value.map(Bytes::len), form.flexible)?;
        if let Some(bytes) = value {
            writer.put_shared(bytes);
        }
        Ok(())
    }
}

impl Nullable for Rope {
    fn size_min(form: Form) -> usize {
        <Bytes as Nullable>::size_min(form)
    }

    fn read_nullable(reader: &mut Reader, form: Form) -> Result<Option<Self>, WireError> {
        let Some(bytes) = Bytes::read_nullable(reader, form)? else { return Ok(None) };
        if bytes.is_empty() {
            return Ok(Some(Rope::default()));
        }
        reader.charge(size_of::<Bytes>())?;
        Ok(Some(Rope::from(bytes)))
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, form: Form) -> Result<(), WireError> {
        writer.put_length_long(value.map(Rope::len), form.flexible)?;
        for piece in value.into_iter().flat_map(|rope| &rope.0) {
            writer.put_shared(piece);
        }
        Ok(())
    }
}

impl<T: Field> Nullable for Vec<T> {
    fn size_min(form: Form) -> usize {
        if form.flexible { 1 } else { 4 }
    }

    fn read_nullable(reader: &mut Reader, form: Form) -> Result<Option<Self>, WireError> {
        let Some(count) = reader.length_long(form.flexible)? else { return Ok(None) };
        reader.claim::<T>(count, T::size_min(form))?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::read(reader, form)?);
        }
        Ok(Some(items))
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, form: Form) -> Result<(), WireError> {
        writer.put_length_long(value.map(Vec::len), form.flexible)?;
        for item in value.into_iter().flatten() {
            item.write(writer, form)?;
        }
        Ok(())
    }
}
