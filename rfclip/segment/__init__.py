"""Pictures in, labels out, without mmsegmentation."""
