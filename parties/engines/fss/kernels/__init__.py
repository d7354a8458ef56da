"""What runs on a GPU in place of torch and numpy, bit for bit alike. Imported only where tensors are on one."""
