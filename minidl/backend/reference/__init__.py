"""Plain Python loops: what each op means, element by element. For tiny sizes and for tests."""
