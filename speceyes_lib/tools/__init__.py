"""What agents may use besides talking: zooming into the picture, and programs in a sandbox."""
