def watch(imports, shell):
    pass
