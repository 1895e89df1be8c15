//! Values of every field type, generated for the proof of the codec.

use bytes::Bytes;
use uuid::Uuid;

use crate::field::Form;
use crate::rope::Rope;

/// Random choices out of bytes that proptest generates and shrinks. When the bytes are used up, every choice is 0.
pub(crate) struct Entropy<'a>(pub(crate) &'a [u8]);

impl Entropy<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A small count, so that nested arrays stay small.
    fn count(&mut self) -> usize {
        usize::from(self.byte()) % 4
    }

    fn bytes(&mut self) -> Vec<u8> {
        let count = match self.byte() {
            // Long enough to be spliced, and too long for a varint of one byte.
            255 => 1_500,
            254 => 200,
            count => usize::from(count) % 9,
        };
        (0..count).map(|_| self.byte()).collect()
    }
}

/// A type whose values can be generated.
pub(crate) trait Sample: Sized {
    /// A value that this form can carry.
    fn sample(entropy: &mut Entropy<'_>, form: Form) -> Self;

    /// The same, but never null.
    fn sample_some(entropy: &mut Entropy<'_>, form: Form) -> Self {
        Self::sample(entropy, form)
    }
}

macro_rules! sample_numbers {
    ($($number:ty),*) => {$(
        impl Sample for $number {
            fn sample(entropy: &mut Entropy<'_>, _: Form) -> Self {
                match entropy.byte() {
                    0 => 0,
                    1 => -1,
                    2 => <$number>::MAX,
                    3 => <$number>::MIN,
                    _ => <$number>::from_be_bytes(std::array::from_fn(|_| entropy.byte())),
                }
            }
        }
    )*};
}
sample_numbers!(i8, i16, i32, i64);

impl Sample for bool {
    fn sample(entropy: &mut Entropy<'_>, _: Form) -> Self {
        entropy.byte() & 1 == 1
    }
}

impl Sample for Uuid {
    fn sample(entropy: &mut Entropy<'_>, _: Form) -> Self {
        match entropy.byte() % 2 {
            0 => Uuid::nil(),
            _ => Uuid::from_bytes(std::array::from_fn(|_| entropy.byte())),
        }
    }
}

impl Sample for String {
    fn sample(entropy: &mut Entropy<'_>, _: Form) -> Self {
        entropy.bytes().iter().map(|byte| char::from_u32(u32::from(*byte) * 17).unwrap_or('x')).collect()
    }
}

impl Sample for Bytes {
    fn sample(entropy: &mut Entropy<'_>, _: Form) -> Self {
        entropy.bytes().into()
    }
}

impl Sample for Rope {
    fn sample(entropy: &mut Entropy<'_>, _: Form) -> Self {
        Rope((0..entropy.count()).map(|_| entropy.bytes().into()).collect())
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(entropy: &mut Entropy<'_>, form: Form) -> Self {
        (0..entropy.count()).map(|_| T::sample(entropy, form)).collect()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(entropy: &mut Entropy<'_>, form: Form) -> Self {
        (!entropy.byte().is_multiple_of(3)).then(|| T::sample(entropy, form))
    }

    fn sample_some(entropy: &mut Entropy<'_>, form: Form) -> Self {
        Some(T::sample(entropy, form))
    }
}
