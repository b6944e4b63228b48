"""The only part of the package that knows Airflow's versions and internals.

The first line of each module says what it knows of Airflow.

What differs between the lines of Airflow. Each column stands for a module of ``lines``; an empty
field means: as in the line before.

==========================  ==============  ==================  =========  ================  =======
Fact                        2.11            3.0                 3.1        3.2               3.3
==========================  ==============  ==================  =========  ================  =======
A task's process asks       the database    the API, through
                                            its supervisor
XComs of other tasks are    in the          written through
written                     database        the API
The state is that           of a try,       of the task; no
                            with number     number
An attempt after an         the same row    has the same id     has a new
orphaned one                                                    id
A second clear shows by     ``max_tries``   a new id                       ``clear_number``
                                                                           of the DAG run
A retry pushes its number   no              yes                            no
A signal ends the process   yes             no: ``on_kill``,
                                            then it goes on
A deferral of a task that   overwrites      is refused; the                the refusal is
a user has ended                            process ends with              logged
                                            the error
A canceled trigger is      no                                                               yes
told that a user acted
A deferred task is known    its trigger id  task state and
by                                          the XCom run_id
The first question of a     is answered     builds the API,
triggerer                                   in seconds
The DAG processor reads     yes             no                  yes
XComs
A trigger may end its task  yes             no (#55315)         yes
XComs of the end event      are stored      are JSON twice; so
                                            the trigger stores
                                            them before
The output of a cleared     all XComs at    by key
task is deleted             once
The trigger's time-out is   the task        the trigger
in                          instance
The triggerer renders       no                                                               yes
templates
The first poke of a         is stored with  is the first
rescheduled sensor          its start       reschedule
The connection form is in   the hook                                       provider info
==========================  ==============  ==================  =========  ================  =======

The facts were seen with 2.11.2, 3.0.6 and 3.3.2. Those of 3.1 and 3.2 were read in the sources of
3.1.8 and 3.2.2. Numbers such as #55315 are issues of apache/airflow.

Some facts need no module of ``lines``, since one rule serves all lines. Airflow 3.0 resumes a retry
with the event that ended the attempt before, so an operator compares ``try_number``. It has in
``context["task"]`` the operator from which the executed one was copied, so ``ti.task`` goes first.

A new line of Airflow whose internals have moved is one new module in ``lines``.
"""
