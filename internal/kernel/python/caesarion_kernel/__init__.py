"""A Jupyter kernel on IPython's shell that speaks to its parent over one socket.

The modules, from the wire upwards:

    encode      messages to JSON, whatever the user's objects hold
    wire        frames on the socket; the only place that writes to it
    interrupts  SIGINT becomes KeyboardInterrupt in the right cell, or nothing
    requests    which request an output belongs to
    streams     sys.stdout and sys.stderr
    loop        asyncio: top-level await, tasks that go on between cells
    shell       IPython's InteractiveShell with our display hook, publisher, tracebacks
    comms       the comm package's manager
    hooks       what is done when the user imports a module or forks
    figures     matplotlib's defaults
    values      what is shown of values in tables
    tables      data frames as application/vnd.caesarion.table+json, and their pages
    variables   the names that the user's code defined
    identity    a kernel that was started beforehand or copied becomes somebody's
    memory      what is free goes back to the system
    rehearsal   the usual sorts of cells, tried before anybody's code
    replies     the answers to all requests but execute_request
    kernel      the loop: takes requests, executes, replies
    main        start-up
    previews    pages of files with rows and columns; a program of its own, beside the kernel

User code runs in the same process and may replace anything it can reach: modules bind the
functions that they need at import, and nothing here looks a name up in a module at run time
when its answer has to be right.
"""
