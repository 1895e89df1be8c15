//! `sum` that is exact or an error. The engine's `sum` wraps around at the end of its type. Here the engine's own
//! accumulators add in a wider type, and the end of the sum is the only place that can fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, not_impl_err};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature,
};

use super::moving::moving;

/// `sum` of the engine, with a check.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CheckedSum(Sum);

/// The type in which values of `kind` are added, if it is not `kind`.
fn wide(kind: &DataType) -> Option<DataType> {
    match kind {
        // 38 digits hold the sum of 2^63 numbers of 64 bits.
        DataType::Int64 | DataType::UInt64 => Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)),
        // The engine gives a sum ten digits more than its argument has, unless that is the most there is.
        DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale) => Some(DataType::Decimal256(76, *scale)),
        _ => None,
    }
}

/// Brings a sum back to the type that the statement expects.
fn narrow(sum: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(sum, kind, &options).map_err(|_| {
        exec_datafusion_err!("the sum does not fit in {kind}; add in a wider type: sum(cast(x as double))")
    })
}

fn narrow_value(sum: &ScalarValue, kind: &DataType) -> Result<ScalarValue> {
    ScalarValue::try_from_array(&narrow(&sum.to_array()?, kind)?, 0)
}

impl CheckedSum {
    /// Calls `make` with the arguments of a sum in the wide type.
    fn widened<T>(
        args: AccumulatorArgs<'_>,
        make: impl FnOnce(AccumulatorArgs<'_>) -> Result<T>,
    ) -> Result<T> {
        match wide(args.return_type()) {
            Some(kind) => {
                let field = args.return_field.as_ref().clone().with_data_type(kind);
                make(AccumulatorArgs { return_field: Arc::new(field), ..args })
            }
            None => make(args),
        }
    }
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let kind = args.return_type().clone();
        let inner = CheckedSum::widened(args, |args| self.0.accumulator(args))?;
        Ok(checked(inner, kind))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let kind = args.return_type().clone();
        if args.is_distinct {
            // The engine's sliding accumulator of distinct values wraps around and takes NULL for a number.
            return match wide(&kind) {
                Some(wide) => Ok(Box::new(MovingDistinct { seen: BTreeMap::new(), sum: 0, wide, kind })),
                None => not_impl_err!("sum(DISTINCT) of {kind} over a moving window"),
            };
        }
        if kind.is_floating() {
            return moving(&args, |args| Sum::new().accumulator(args));
        }
        let inner = CheckedSum::widened(args, |args| self.0.create_sliding_accumulator(args))?;
        Ok(checked(inner, kind))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.0.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let kind = args.return_type().clone();
        let inner = CheckedSum::widened(args, |args| self.0.create_groups_accumulator(args))?;
        Ok(match wide(&kind) {
            Some(wide) => Box::new(CheckedGroups { inner, wide, kind }),
            None => inner,
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        match wide(args.return_type()) {
            Some(kind) => {
                let field = Field::new(args.return_field.name(), kind, true);
                self.0.state_fields(StateFieldsArgs { return_field: Arc::new(field), ..args })
            }
            None => self.0.state_fields(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.0.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.0.order_sensitivity()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn set_monotonicity(&self, kind: &DataType) -> SetMonotonicity {
        self.0.set_monotonicity(kind)
    }
}

fn checked(inner: Box<dyn Accumulator>, kind: DataType) -> Box<dyn Accumulator> {
    match wide(&kind) {
        Some(wide) => Box::new(CheckedOne { inner, wide, kind }),
        None => inner,
    }
}

/// The sum of one group.
#[derive(Debug)]
struct CheckedOne {
    inner: Box<dyn Accumulator>,
    wide: DataType,
    kind: DataType,
}

impl Accumulator for CheckedOne {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&[cast(&values[0], &self.wide)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        narrow_value(&self.inner.evaluate()?, &self.kind)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&[cast(&values[0], &self.wide)?])
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

/// The sum of the distinct values in a moving window.
#[derive(Debug)]
struct MovingDistinct {
    /// How often each value is in the window.
    seen: BTreeMap<i128, u64>,
    sum: i128,
    wide: DataType,
    kind: DataType,
}

impl MovingDistinct {
    fn numbers(&self, values: &[ArrayRef]) -> Result<ArrayRef> {
        match &self.wide {
            DataType::Decimal128(..) => Ok(cast(&values[0], &self.wide)?),
            _ => Ok(values[0].clone()),
        }
    }

    fn add(&mut self, number: i128) -> Result<()> {
        self.sum =
            self.sum.checked_add(number).ok_or_else(|| exec_datafusion_err!("the sum is too large"))?;
        Ok(())
    }
}

impl Accumulator for MovingDistinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for number in self.numbers(values)?.as_primitive::<Decimal128Type>().iter().flatten() {
            let seen = self.seen.entry(number).or_default();
            *seen += 1;
            if *seen == 1 {
                self.add(number)?;
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for number in self.numbers(values)?.as_primitive::<Decimal128Type>().iter().flatten() {
            let Some(seen) = self.seen.get_mut(&number) else { continue };
            *seen -= 1;
            if *seen == 0 {
                self.seen.remove(&number);
                self.add(-number)?;
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let scale = if let DataType::Decimal128(_, scale) = self.kind { scale } else { 0 };
        let sum = (!self.seen.is_empty()).then_some(self.sum);
        narrow_value(&ScalarValue::Decimal128(sum, DECIMAL128_MAX_PRECISION, scale), &self.kind)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.seen.len() * size_of::<(i128, u64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        not_impl_err!("a moving window has no partial sums")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        not_impl_err!("a moving window has no partial sums")
    }
}

/// The sums of many groups.
struct CheckedGroups {
    inner: Box<dyn GroupsAccumulator>,
    wide: DataType,
    kind: DataType,
}

impl GroupsAccumulator for CheckedGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.inner.update_batch(&[cast(&values[0], &self.wide)?], groups, filter, count)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        narrow(&self.inner.evaluate(emit)?, &self.kind)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.inner.merge_batch(states, groups, count)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&[cast(&values[0], &self.wide)?], filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}
