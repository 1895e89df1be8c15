//! Record bytes to Arrow: JSON inference, widening, and the system columns.
